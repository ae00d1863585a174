"""Log-probabilities of options after the same last tokens of a prompt, on many mixtures of few caches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.branch_states import branch_states
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.ops.branch_attention import Branches
from c2c_lightning.responders.base import OptionScores
from c2c_lightning.responders.option_scoring import OptionRuns, scores_of_states


@dataclass(frozen=True)
class BranchedPrompt:
    """The end of a prompt, behind several caches that are mixed layer by layer.

    Attributes:
        prefixes: caches of one row each.
        chosen: the cache that each layer of a mixture has.
        position: of the first token behind the cache.
        ids: the last tokens of the prompt.
        options: token ids of the continuations.
    """

    prefixes: tuple[LayerStack, ...]
    chosen: Int[Tensor, "mixtures layers"]
    position: int
    ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


def score_branches(lm: FrozenLM, prompts: Sequence[BranchedPrompt]) -> list[list[OptionScores]]:
    """The scores of the options on each mixture, for each prompt; the model has to support ragged attention."""
    rows = [(number, row) for number, prompt in enumerate(prompts) for row in range(len(prompt.chosen))]
    options = [prompts[number].options for number, _ in rows]
    runs = OptionRuns.of(options)
    new: list[list[list[int]]] = [[] for _ in prompts]
    mixtures: list[list[int]] = [[] for _ in prompts]
    for place, ids, is_real in zip(runs.rows.tolist(), runs.ids, runs.mask, strict=True):
        number, mixture = rows[place]
        new[number].append([*prompts[number].ids, *ids[is_real].tolist()])
        mixtures[number].append(mixture)
    pairs = list(zip(prompts, new, strict=True))
    groups = [
        Branches(
            tuple(prefix[0].num_tokens for prefix in prompt.prefixes),
            tuple(map(len, branches)),
            tuple(map(tuple, prompt.chosen[mixture].T.tolist())),
        )
        for (prompt, branches), mixture in zip(pairs, mixtures, strict=True)
    ]
    flat = torch.tensor([token for _, branches in pairs for ids in branches for token in ids])
    positions = [prompt.position + torch.arange(len(ids)) for prompt, branches in pairs for ids in branches]
    # The last prompt token predicts the first token of an option.
    is_read = [torch.arange(len(ids)) >= len(prompt.ids) - 1 for prompt, branches in pairs for ids in branches]
    prefixes = [prefix for prompt in prompts for prefix in prompt.prefixes]
    states = branch_states(lm, flat, torch.cat(positions), prefixes, groups)
    scores = iter(scores_of_states(lm, options, states[torch.cat(is_read).to(lm.device)], runs))
    return [[next(scores) for _ in range(len(prompt.chosen))] for prompt in prompts]

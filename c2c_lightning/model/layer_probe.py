"""Layer alignment by evidence: each receiver layer reads the sharer layer that predicts its entries best.

Linear maps from one layer's values to another's are fitted in closed form on paired caches of the same text, as for the
fuser kind `ridge`, and compared on held-out tokens. Values, since keys are rotated by positions that differ between
the models.

Axes: F tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens
from c2c_lightning.alignment.layer_alignment import LayerMap
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.ridge_regression import probe_scores
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.shared_prefix import prefill_prompts

PROBE_TOKENS = 4096
"""Fused tokens that layers are compared on."""

LEAST_TOKENS = 64
"""Fewer tokens give no comparison."""

REGULARISATION = 0.01
"""Penalty of the maps, a multiple of the mean squared feature."""


@dataclass(frozen=True)
class ProbedLayers:
    """What the probe found for one sharer.

    Attributes:
        layer_map: the sharer layer of each receiver layer.
        scores: (receiver layers, sharer layers), R^2 on held-out tokens.
    """

    layer_map: LayerMap
    scores: Float[Tensor, "receiver_layers sharer_layers"]


@torch.no_grad()
def probe_layers(
    receiver: FrozenLM,
    sharers: Sequence[FrozenLM],
    prompts: Iterable[PromptBatch],
    num_tokens: int = PROBE_TOKENS,
    done: Callable[[int], None] = lambda tokens: None,
) -> list[ProbedLayers]:
    """Compare the layers of a receiver with those of each sharer.

    Args:
        receiver: the receiver.
        sharers: the sharers.
        prompts: prompts of the training data, as many as are needed.
        num_tokens: fused tokens of each sharer that are enough.
        done: called with the number of tokens of each batch.

    Raises:
        FuserConfigError: too few tokens are fused in these prompts.
    """
    pairs = [_PairedValues(sharer, number) for number, sharer in enumerate(sharers)]
    for prompt in prompts:
        prompt = prompt.to(receiver.device)
        own = receiver.prefill_tokens(prompt.receiver, prompt.num_receiver_tokens - 1)
        done(min((pair.add(prompt, own) for pair in pairs), default=0))
        if all(pair.count >= num_tokens for pair in pairs):
            break
    return [pair.probed() for pair in pairs]


class _PairedValues:
    """Values of both models at the fused tokens of one sharer, by layer, collected on the CPU."""

    def __init__(self, sharer: FrozenLM, number: int) -> None:
        self.sharer, self.number, self.count = sharer, number, 0
        self.mine: dict[int, list[Tensor]] = defaultdict(list)
        self.theirs: dict[int, list[Tensor]] = defaultdict(list)

    def add(self, prompt: PromptBatch, own: LayerStack) -> int:
        """Collect a batch; the number of its tokens."""
        fused = FusedTokens.join([step.fused_tokens[self.number] for step in prompt.plan.steps])
        if not len(fused):
            return 0
        end = prompt.plan.num_read_tokens[self.number]
        theirs = prefill_prompts(self.sharer, prompt.sharers[self.number], end)
        for collected, stack, column in ((self.mine, own, fused.token), (self.theirs, theirs, fused.source)):
            for number, layer in enumerate(stack):
                collected[number].append(layer.values[fused.row, :, column].flatten(1).float().cpu())
        self.count += len(fused)
        return len(fused)

    def probed(self) -> ProbedLayers:
        """The best sharer layer of each receiver layer; the lower one of equal ones."""
        if self.count < LEAST_TOKENS:
            raise FuserConfigError(
                f"`layer_alignment: correlated` compares layers on tokens that both models read, but the training data "
                f"has {self.count} such tokens, fewer than {LEAST_TOKENS}. Give more rows, or use `depth`."
            )
        mine, theirs = ([torch.cat(parts) for parts in side.values()] for side in (self.mine, self.theirs))
        scores = torch.empty(len(mine), len(theirs), dtype=torch.double)
        for width in {values.shape[1] for values in mine}:  # layers of one model may differ in their heads
            alike = [number for number, values in enumerate(mine) if values.shape[1] == width]
            targets = torch.stack([mine[number] for number in alike])
            for number, source in enumerate(theirs):
                scores[alike, number] = probe_scores(source[None], targets, REGULARISATION)[:, 0]
        return ProbedLayers(scores.argmax(1).tolist(), scores)

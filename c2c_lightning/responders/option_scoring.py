"""Log-probabilities of given answers (options): one prefill per prompt, shared by all its options."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.layer import LayerStack, SharerKV, select_rows
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.responders.base import OptionScores
from c2c_lightning.responders.phase_timer import PhaseTimer


class OptionEncoder:
    """The tokens of an option after the prompt, without the tokens that close the turn.

    The chat template decides them (a leading space after `Answer:`, none in ChatML), so the option is encoded as the
    assistant's message with the answering model's encoder, whose sharers are ignored.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        # Templates do not say where the message ends: two messages differ last in front of the closing tokens.
        one, other = (self._response_ids([{"role": "user", "content": "?"}], [text])[0] for text in ("0", "1"))
        self._closing = next(n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b)

    def _response_ids(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        examples = [[*conversation, {"role": "assistant", "content": option}] for option in options]
        return [list(example.response_ids) for example in self.encoder.encode_examples(examples)]

    def encode(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        """Token ids of each option."""
        return [ids[: len(ids) - self._closing] for ids in self._response_ids(conversation, options)]


@dataclass(frozen=True)
class OptionRuns:
    """The inputs behind the prompts: each option without its last token, which is predicted but never an input.

    Options of one prompt with the same inputs (all letters of one token) share a run.

    Attributes:
        rows: prompt of each run, (runs,).
        ids: (runs, tokens), padded on the right.
        mask: likewise, whether a token is real.
        run_of: run of each option, all prompts' options in order.
    """

    rows: Int[Tensor, " runs"]
    ids: Int[Tensor, "runs tokens"]
    mask: Bool[Tensor, "runs tokens"]
    run_of: tuple[int, ...]

    @classmethod
    def of(cls, options: Sequence[Sequence[Sequence[int]]]) -> Self:
        """The runs of the options of each prompt."""
        inputs = [(row, tuple(ids[:-1])) for row, of_row in enumerate(options) for ids in of_row]
        numbers = {given: number for number, given in enumerate(dict.fromkeys(inputs))}
        tokens = [torch.tensor(ids, dtype=torch.long) for _, ids in numbers]
        ids = pad_sequence(tokens, batch_first=True)
        mask = pad_sequence([torch.ones_like(run, dtype=torch.bool) for run in tokens], batch_first=True)
        rows = torch.tensor([row for row, _ in numbers])
        return cls(rows, ids, mask, tuple(numbers[given] for given in inputs))

    def tokens(self, lm: FrozenLM) -> TokenBatch:
        """The inputs on the model's device."""
        return TokenBatch(self.ids, self.mask).to(lm.device)


@torch.no_grad()
def score_options(
    lm: FrozenLM, tokens: TokenBatch, kv: LayerStack, options: Sequence[Sequence[Sequence[int]]]
) -> list[OptionScores]:
    """Log-probabilities of options (token ids) after prompts.

    Args:
        lm: the model.
        tokens: the prompts.
        kv: cache of their first tokens; at least the last one is not in it.
        options: of each prompt.
    """
    runs = OptionRuns.of(options)
    text = tokens.rows(runs.rows).append(runs.tokens(lm))
    return _scored(lm, options, text, ResponsePrefix(kv).rows(runs.rows.to(lm.device)), runs)


@torch.no_grad()
def score_fused_options(
    model: C2CModel,
    prompt: PromptBatch,
    sharer_kv: SharerKV,
    options: Sequence[Sequence[Sequence[int]]],
    timer: PhaseTimer,
) -> list[OptionScores]:
    """Log-probabilities of options (token ids) on the fused cache.

    Each prompt is fused once for all its options, unless their own tokens are fused too (`fusion_mode: decode`).
    """
    runs = OptionRuns.of(options)
    prompts, run = prompt.select(runs.rows), runs.tokens(model.receiver)
    with timer.phase("prefill_receiver"):
        if model.mode.fuses_response:
            kv = [None if stack is None else select_rows(stack, runs.rows) for stack in sharer_kv]
            prefix = model.mode.response_prefix(model, prompts, kv, run)
        else:
            prefix = model.mode.response_prefix(model, prompt, sharer_kv, run)
            prefix = prefix.rows(runs.rows.to(model.receiver.device))
    with timer.phase("decode"):
        return _scored(model.receiver, options, prompts.receiver.append(run), prefix, runs)


def _scored(
    lm: FrozenLM,
    options: Sequence[Sequence[Sequence[int]]],
    text: TokenBatch,
    prefix: ResponsePrefix,
    runs: OptionRuns,
) -> list[OptionScores]:
    """Scores of options that follow their prompts in `text`, one row for each run."""
    # The last prompt token predicts the first token of an option.
    is_real = torch.nn.functional.pad(runs.mask, (1, 0), value=True)
    states = lm.hidden_states(text, prefix)[:, -is_real.shape[1] :]
    # Real tokens only: logits of padding would need (runs, tokens, vocabulary) for nothing.
    return scores_of_states(lm, options, states[is_real.to(lm.device)], runs)


def scores_of_states(
    lm: FrozenLM,
    options: Sequence[Sequence[Sequence[int]]],
    states: Float[Tensor, "n width"],
    runs: OptionRuns,
) -> list[OptionScores]:
    """Scores of options.

    Args:
        lm: the model.
        options: of each prompt.
        states: last hidden states of the last prompt token and of the inputs of each run, run after run.
        runs: of the options.
    """
    logits = lm.head.logits(states).float()
    ends = (runs.mask.sum(1) + 1).cumsum(0).tolist()
    flat = [ids for of_row in options for ids in of_row]
    # A run has as many states as its options have tokens.
    places = [range(ends[run] - len(ids), ends[run]) for run, ids in zip(runs.run_of, flat, strict=True)]
    place = torch.tensor(list(chain(*places)), device=lm.device)
    chosen = torch.tensor(list(chain(*flat)), device=lm.device)
    log_probabilities = logits.log_softmax(-1)[place, chosen]
    greedy = logits.argmax(-1)[place] == chosen
    # Double precision: long options sum hundreds of terms.
    return _by_prompt(options, log_probabilities.double().cpu(), greedy.cpu())


def _by_prompt(options: Sequence[Sequence[Sequence[int]]], values: Tensor, greedy: Tensor) -> list[OptionScores]:
    """Sums over each option's tokens, grouped by prompt."""
    lengths = [len(ids) for of_row in options for ids in of_row]
    sums = [float(of_option.sum()) for of_option in values.split(lengths)]
    hits = [bool(of_option.all()) for of_option in greedy.split(lengths)]
    flat = zip(sums, lengths, hits, strict=True)
    return [OptionScores(*zip(*islice(flat, len(of_row)), strict=True)) for of_row in options]

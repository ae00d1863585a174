"""Log-probabilities of given answers (options): one prefill per prompt, shared by all its options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.layer import LayerStack, SharerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.responders.phase_timer import PhaseTimer


@dataclass(frozen=True)
class OptionScores:
    """Log-probabilities of each option as the answer to one prompt.

    Attributes:
        log_probabilities: sum over the tokens of each option, in nats.
        num_tokens: tokens of each option.
        is_greedy: whether greedy decoding would generate the option.
        seconds, prompt_tokens, message, phases, sharer_tokens, message_tokens, shifted_positions, matches_unfused: as
            in `Answer`.
    """

    log_probabilities: tuple[float, ...]
    num_tokens: tuple[int, ...]
    is_greedy: tuple[bool, ...]
    seconds: float = 0.0
    prompt_tokens: int = 0
    message: str | None = None
    phases: Mapping[str, float] | None = None
    sharer_tokens: int = 0
    message_tokens: int = 0
    shifted_positions: bool = False
    matches_unfused: bool | None = None


@runtime_checkable
class Scorer(Protocol):
    """A responder that also computes log-probabilities of given answers."""

    name: str

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option as the whole answer to its conversation."""
        ...


class OptionEncoder:
    """The tokens of an option after the prompt, without the tokens that close the turn.

    The chat template decides them (a leading space after `Answer:`, none in ChatML), so the option is encoded as the
    assistant's message.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Wrap the answering model's encoder; its sharers are ignored."""
        self.encoder = encoder
        one, other = (self._response_ids([{"role": "user", "content": "?"}], [text])[0] for text in ("0", "1"))
        self._closing = next(n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b)

    def _response_ids(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        examples = [[*conversation, {"role": "assistant", "content": option}] for option in options]
        return [list(example.response_ids) for example in self.encoder.encode_examples(examples)]

    def encode(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        """Token ids of each option."""
        return [ids[: len(ids) - self._closing] for ids in self._response_ids(conversation, options)]


@torch.no_grad()
def score_options(
    lm: FrozenLM, tokens: TokenBatch, kv: LayerStack, options: Sequence[Sequence[Sequence[int]]]
) -> list[OptionScores]:
    """Log-probabilities of options after prefilled prompts.

    Args:
        lm: the answering model.
        tokens: the prompts, on the model's device.
        kv: its cache over all prompt tokens but the last (fused or not).
        options: for each prompt the token ids of each option.
    """
    rows, ids, mask = _flattened(options, lm.device)
    text = tokens.rows(rows).append(ids[:, :-1], mask[:, :-1])
    return _scored(lm, options, text, ResponsePrefix(kv).rows(rows), ids, mask)


@torch.no_grad()
def score_fused_options(
    model: C2CModel,
    prompt: PromptBatch,
    sharer_kv: SharerKV,
    options: Sequence[Sequence[Sequence[int]]],
    timer: PhaseTimer,
) -> list[OptionScores]:
    """Log-probabilities of options on the fused cache.

    Each prompt is fused once for all its options, unless their own tokens are fused too.

    Args:
        model: the fused model.
        prompt: the prompts, on the receiver's device.
        sharer_kv: the sharers' caches.
        options: for each prompt the token ids of each option.
        timer: times the phases `prefill_receiver` and `decode`.
    """
    rows, ids, mask = _flattened(options, model.receiver.device)
    # The last token of an option is predicted, but is no input.
    prompts, run, real = prompt.select(rows), ids[:, :-1], mask[:, :-1]
    with timer.phase("prefill_receiver"):
        if model.mode.fuses_response:
            kv = [None if stack is None else [layer.rows(rows) for layer in stack] for stack in sharer_kv]
            prefix = model.mode.response_prefix(model, prompts, kv, run, real)
        else:
            prefix = model.mode.response_prefix(model, prompt, sharer_kv, run, real).rows(rows)
    with timer.phase("decode"):
        return _scored(model.receiver, options, prompts.receiver.append(run, real), prefix, ids, mask)


def _scored(
    lm: FrozenLM,
    options: Sequence[Sequence[Sequence[int]]],
    text: TokenBatch,
    prefix: ResponsePrefix,
    ids: Tensor,
    mask: Tensor,
) -> list[OptionScores]:
    """Scores of options (all options, tokens) that follow their prompts in `text`."""
    states = lm.hidden_states(text, prefix)[:, -ids.shape[1] :]
    logits, chosen = lm.head.logits(states[mask]).float(), ids[mask]
    log_probabilities = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    greedy = logits.argmax(-1) == chosen
    return _by_prompt(options, log_probabilities.double().cpu(), greedy.cpu())


def _flattened(options: Sequence[Sequence[Sequence[int]]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The prompt of each option (all options,), its ids and their mask (all options, tokens)."""
    flat = [(row, list(ids)) for row, of_row in enumerate(options) for ids in of_row]
    rows = torch.tensor([row for row, _ in flat], device=device)
    return rows, *_right_padded([ids for _, ids in flat], device)


def _right_padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) < lengths[:, None]


def _by_prompt(options: Sequence[Sequence[Sequence[int]]], values: Tensor, greedy: Tensor) -> list[OptionScores]:
    """Sums over each option's tokens, grouped by prompt."""
    scores, begin = [], 0
    for of_row in options:
        sums, hits = [], []
        for ids in of_row:
            end = begin + len(ids)
            sums.append(float(values[begin:end].sum()))
            hits.append(bool(greedy[begin:end].all()))
            begin = end
        scores.append(OptionScores(tuple(sums), tuple(len(ids) for ids in of_row), tuple(hits)))
    return scores

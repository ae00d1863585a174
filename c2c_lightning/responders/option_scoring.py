"""How likely a model finds given answers: a prompt's cache is made once, then every answer is read on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, TokenBatch, positions_of
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.cache import prefix_cache
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response import Response


@dataclass(frozen=True)
class OptionScores:
    """How likely each option is as the answer to one prompt.

    Attributes:
        log_probabilities: of each option's tokens together, in nats.
        num_tokens: tokens of each option.
        is_greedy: whether greedy decoding would write the option.
        seconds: wall time, an equal share of its batch's.
        prompt_tokens: tokens of the prompt.
        message: the text that was handed over on the way, if any.
        phases: seconds of each phase, where measured.
        sharer_tokens: tokens that sharers read on the way.
        message_tokens: tokens of the message.
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


@runtime_checkable
class Scorer(Protocol):
    """A responder that can also tell how likely given answers are."""

    name: str

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option as the whole answer to its conversation."""
        ...


class OptionEncoder:
    """The tokens of an option as they follow the prompt, without what closes the turn.

    Which tokens those are is the chat template's matter (a space in front for `Answer:`, none in ChatML), so the
    option is encoded as the assistant's message.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Take the answering model's encoder; sharers are of no account here."""
        self.encoder = encoder
        one, other = (self._response_ids([{"role": "user", "content": "?"}], [text])[0] for text in ("0", "1"))
        self._closing = next(n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b)

    def _response_ids(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        examples = [[*conversation, {"role": "assistant", "content": option}] for option in options]
        return [list(example.response_ids) for example in self.encoder.encode_examples(examples)]

    def encode(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        """Token ids of each option."""
        return [ids[: len(ids) - self._closing] for ids in self._response_ids(conversation, options)]


def repeat_kv(kv: LayerStack, rows: Tensor) -> LayerStack:
    """A cache with some of its rows, in any order and number.

    Args:
        kv: the cache.
        rows: (new batch,), which row each new row is.
    """
    return [LayerKV(layer.keys[rows], layer.values[rows]) for layer in kv]


@torch.no_grad()
def score_options(
    lm: FrozenLM, tokens: TokenBatch, kv: LayerStack, options: Sequence[Sequence[Sequence[int]]]
) -> list[OptionScores]:
    """Log-probabilities of options on prompts whose cache is there already.

    Args:
        lm: the model that answers.
        tokens: the prompts, on the model's device.
        kv: its cache over all prompt tokens but the last (fused or not).
        options: for each prompt the token ids of each option.
    """
    flat = [(row, list(ids)) for row, of_row in enumerate(options) for ids in of_row]
    rows = torch.tensor([row for row, _ in flat], device=lm.device)
    ids, mask = _right_padded([ids for _, ids in flat], lm.device)
    lm.check_length(tokens.input_ids.shape[1] + ids.shape[1])
    # What is run: the last prompt token and all of an option but its last token, (options, width).
    inputs = torch.cat([tokens.input_ids[rows, -1:], ids[:, :-1]], 1)
    input_mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)
    output: Any = lm.model(
        input_ids=inputs,
        attention_mask=torch.cat([tokens.mask[rows, :-1], input_mask.long()], 1),
        position_ids=tokens.positions[rows, -1:] + positions_of(input_mask),
        past_key_values=prefix_cache(repeat_kv(kv, rows)),
        use_cache=False,
        # Logits at real positions only: (real tokens of all options, vocab).
        logits_to_keep=mask,
    )
    return _scored(options, output.logits.float(), ids[mask])


def _scored(options: Sequence[Sequence[Sequence[int]]], logits: Tensor, chosen: Tensor) -> list[OptionScores]:
    """Scores from (all options' tokens, vocab) logits and (tokens,) ids."""
    log_probabilities = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    greedy = logits.argmax(-1) == chosen
    return _by_prompt(options, log_probabilities.double().cpu(), greedy.cpu())


@torch.no_grad()
def score_fused_options(
    model: C2CModel, prompt: PromptBatch, sharer_kv: SharerKV, options: Sequence[Sequence[Sequence[int]]]
) -> list[OptionScores]:
    """Log-probabilities of options where fusing goes on in the pass that reads them.

    Each prompt is fused once for all its options, unless their own tokens are fused too.

    Args:
        model: the fused model.
        prompt: the prompts, on the receiver's device.
        sharer_kv: the sharers' caches.
        options: for each prompt the token ids of each option.
    """
    device = model.receiver.device
    flat = [(row, list(ids)) for row, of_row in enumerate(options) for ids in of_row]
    rows = torch.tensor([row for row, _ in flat], device=device)
    ids, mask = _right_padded([ids for _, ids in flat], device)
    model.receiver.check_length(prompt.num_receiver_tokens + ids.shape[1])
    prompts, run, real = prompt.select(rows), ids[:, :-1], mask[:, :-1]
    if model.mode.reads_response:
        kv = [None if stack is None else repeat_kv(stack, rows) for stack in sharer_kv]
        prefix = model.mode.response_prefix(model, prompts, kv, run, real)
    else:
        prefix = model.mode.response_prefix(model, prompt, sharer_kv, run, real).rows(rows)
    logits = Response(prompts.receiver, prefix, run, real).logits(model.receiver)[:, -ids.shape[1] :]
    return _scored(options, logits[mask].float(), ids[mask])


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

"""Which fused tokens decide an answer: the fusion of one token, or of one message, is left out at a time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from c2c_lightning.analysis.alignment_picture import visible_tokens
from c2c_lightning.analysis.fusion_mask import masked_tokens
from c2c_lightning.analysis.row_scores import score_batch
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import PromptError
from c2c_lightning.kv.layer import select_rows
from c2c_lightning.model.c2c import C2CModel


@dataclass(frozen=True)
class Effect:
    """What the fusion of a token or a message contributes to an answer.

    Attributes:
        nats: log-probability of the answer with the whole fusion, minus that without this part; above 0 it supports it.
        changes_answer: whether greedy decoding no longer gives the answer without it.
    """

    nats: float
    changes_answer: bool


@dataclass(frozen=True)
class PromptPart:
    """A receiver token, or a message.

    Attributes:
        text: the token, printable; of a message its role.
        begin: its first token.
        end: the token after its last.
        effect: None where nothing of it is fused.
    """

    text: str
    begin: int
    end: int
    effect: Effect | None


@dataclass(frozen=True)
class TokenEffects:
    """The effects of all parts of one prompt on one answer.

    Attributes:
        answer: the answer whose probability is measured.
        log_likelihood: of the answer with the whole fusion, in nats.
        unfused: of the answer without any fusion, in nats.
        tokens: the receiver's tokens.
        messages: its messages.
    """

    answer: str
    log_likelihood: float
    unfused: float
    tokens: list[PromptPart]
    messages: list[PromptPart]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": 1, **asdict(self)}

    @property
    def largest(self) -> float:
        """The largest absolute effect of a token, in nats; at least a small positive number, to divide by."""
        return max((abs(part.effect.nats) for part in self.tokens if part.effect is not None), default=0.0) or 1e-9


@torch.no_grad()
def token_effects(
    model: C2CModel,
    conversation: Conversation,
    sharer_conversation: Any = None,
    answer: str | None = None,
    batch_size: int = 32,
    done: Callable[[int], None] = lambda count: None,
) -> TokenEffects:
    """The effects of the fused tokens and of the messages of one prompt.

    Args:
        model: the fused model, in evaluation mode.
        conversation: the receiver's messages, the last of them to answer.
        sharer_conversation: what the sharers read instead; default the same.
        answer: the answer; default the model's own, by greedy decoding.
        batch_size: variants of the prompt in one pass.
        done: called with the number of measured variants after each pass.

    Raises:
        PromptError: no token of the prompt is fused, or an empty answer.
    """
    if answer is None:
        answer = model.chat([conversation], [sharer_conversation], do_sample=False, max_new_tokens=64)[0]
    if not answer.strip():
        raise PromptError("the answer is empty, so there is no token whose probability could be measured.")
    batch = _batch(model, conversation, sharer_conversation, answer)
    fused = _fused(model, batch)
    columns = fused.nonzero()[:, 0].tolist()
    if not columns:
        raise PromptError("no token of this prompt is fused, so no fusion can be left out.")
    chat = model.encoder.receiver_tokenizer.encode([conversation], True)[0]
    # Columns of real tokens: the released alignments leave padding between messages.
    real = batch.prompt.receiver.mask[0].nonzero()[:, 0].tolist()
    ranges = [chat.token_range(span.start, span.end) for span in chat.spans]
    groups = [[real[token] for token in range(*bounds) if fused[real[token]]] for bounds in ranges]
    left_out = [[], list(columns), *([column] for column in columns), *groups]
    scores = _scores(model, batch, left_out, batch_size, done)
    (whole, is_own), (unfused, _), *rest = scores
    effects = [Effect(whole - nats, is_own and not is_right) for nats, is_right in rest]
    by_column = dict(zip(columns, effects, strict=False))
    ids = batch.prompt.receiver.input_ids[0, real].tolist()
    texts = visible_tokens(model.encoder.receiver_tokenizer, ids, None)
    tokens = [PromptPart(text, n, n + 1, by_column.get(real[n])) for n, text in enumerate(texts)]
    parts = zip(_roles(conversation, len(ranges)), ranges, groups, effects[len(columns) :], strict=True)
    messages = [PromptPart(role, *bounds, effect if group else None) for role, bounds, group, effect in parts]
    return TokenEffects(answer, whole, unfused, tokens, messages)


def _batch(model: C2CModel, conversation: Conversation, sharer_conversation: Any, answer: str) -> TrainingBatch:
    """The prompt with the answer, a batch of one row."""
    encoder, reply = model.encoder, {"role": "assistant", "content": answer}
    examples = encoder.encode_examples([[*conversation, reply]], [sharer_conversation])
    return collate_examples(examples, encoder.receiver_pad_id, encoder.sharer_pad_ids)


def _fused(model: C2CModel, batch: TrainingBatch) -> Bool[Tensor, " tokens"]:
    """Which receiver tokens are fused with any sharer; the last one in the modes that fuse it."""
    sources = torch.stack([sharer.index[0] for sharer in batch.prompt.sharers])
    fused = (sources >= 0).any(0)
    fused[-1] = model.mode.fuses_last_prompt_token
    return fused


def _scores(
    model: C2CModel,
    batch: TrainingBatch,
    left_out: Sequence[Sequence[int]],
    batch_size: int,
    done: Callable[[int], None],
) -> list[tuple[float, bool]]:
    """Log-probability of the answer, and whether it is the greedy one, without some columns' fusion, for each set."""
    batch = batch.to(model.receiver.device)
    sharer_kv = model.prefill_sharers(batch.prompt)
    found = []
    for first in range(0, len(left_out), batch_size):
        sets = left_out[first : first + batch_size]
        kept = torch.ones(len(sets), batch.prompt.num_receiver_tokens, dtype=torch.bool)
        for row, columns in enumerate(sets):
            kept[row, list(columns)] = False
        rows = torch.zeros(len(sets), dtype=torch.long)
        many = TrainingBatch(batch.prompt.select(rows), *(t[rows] for t in (batch.response_ids, batch.response_mask)))
        caches = [None if kv is None else select_rows(kv, rows) for kv in sharer_kv]
        with masked_tokens(model.fuser, kept):
            scores = score_batch(model, many, caches)
        found += list(zip(scores.log_likelihood, scores.right, strict=True))
        done(len(sets))
    return found


def _roles(conversation: Conversation, count: int) -> list[str]:
    """Role and number of each message that the tokenizer located."""
    names = [f"{message['role']} {n}" for n, message in enumerate(conversation, start=1)]
    return names if len(names) == count else [f"message {n}" for n in range(1, count + 1)]


def share_of_gain(effects: TokenEffects, part: PromptPart) -> float | None:
    """The effect of a part as a share of the whole fusion; None without fusion, or where the whole has no effect."""
    gain = effects.log_likelihood - effects.unfused
    if part.effect is None or math.isclose(gain, 0.0, abs_tol=1e-6):
        return None
    return part.effect.nats / gain

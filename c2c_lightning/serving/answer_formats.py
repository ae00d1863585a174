"""Answers as objects of OpenAI's API: whole, and in chunks."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from c2c_lightning.serving.answer_row import AnswerRow, RowEvent, TokenLogProbs

_FACTS = (
    "prompt_tokens", "sharer_tokens", "cached_tokens", "fused_tokens", "fused_bytes", "message", "message_tokens",
    "message_seconds", "donor", "missing_sharers", "gates", "tokens",
)  # fmt: skip


class AnswerFormat(ABC):
    """Objects of one response.

    Args:
        model: name of the model.
        tokenizer: decodes single tokens for log-probabilities.
    """

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.id, self.created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())

    def whole(self, rows: Sequence[AnswerRow]) -> dict[str, Any]:
        """The response that is not streamed."""
        choices = [self.whole_choice(row) | self._end(row) for row in rows]
        return {**self._frame(self.whole_object), "choices": choices, "usage": usage(rows)}

    def chunk(self, event: RowEvent, row: AnswerRow) -> dict[str, Any]:
        """One chunk of a stream."""
        choice = {"index": row.number, "finish_reason": None, **self.delta(event)}
        if event.message:
            choice["c2c"] = {"message_delta": event.message}
        if event.is_end:
            choice |= self._end(row)
        return {**self._frame(self.chunk_object), "choices": [choice]}

    def usage_chunk(self, rows: Sequence[AnswerRow]) -> dict[str, Any]:
        """The last chunk where usage was asked for."""
        return {**self._frame(self.chunk_object), "choices": [], "usage": usage(rows)}

    def start(self, row: AnswerRow) -> dict[str, Any] | None:
        """The first chunk of an answer, if there is one before its text."""
        return None

    @abstractmethod
    def whole_choice(self, row: AnswerRow) -> dict[str, Any]:
        """A whole answer."""

    @abstractmethod
    def delta(self, event: RowEvent) -> dict[str, Any]:
        """New text of an answer."""

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    @staticmethod
    def _end(row: AnswerRow) -> dict[str, Any]:
        return {"index": row.number, "finish_reason": row.finish_reason, "c2c": c2c_report(row)}

    def token_text(self, token: int) -> str:
        """The text of one token."""
        text: str = self.tokenizer.decode([token])
        return text


class ChatFormat(AnswerFormat):
    """`/v1/chat/completions`."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def start(self, row: AnswerRow) -> dict[str, Any]:
        """The role."""
        choice = {"index": row.number, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return {**self._frame(self.chunk_object), "choices": [choice]}

    def whole_choice(self, row: AnswerRow) -> dict[str, Any]:
        """See `AnswerFormat.whole_choice`."""
        message = {"role": "assistant", "content": row.text, "refusal": None}
        return {"message": message, "logprobs": self._logprobs(row.logprobs, row.settings.top_logprobs is not None)}

    def delta(self, event: RowEvent) -> dict[str, Any]:
        """See `AnswerFormat.delta`."""
        delta = {"content": event.text} if event.text else {}
        return {"delta": delta, "logprobs": self._logprobs(event.logprobs, bool(event.logprobs))}

    def _logprobs(self, entries: Sequence[TokenLogProbs], is_wanted: bool) -> dict[str, Any] | None:
        if not is_wanted:
            return None
        content = [
            self._entry(e.token, e.log_probability) | {"top_logprobs": [self._entry(*pair) for pair in e.top]}
            for e in entries
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, log_probability: float) -> dict[str, Any]:
        text = self.token_text(token)
        return {"token": text, "logprob": log_probability, "bytes": list(text.encode())}


class TextFormat(AnswerFormat):
    """`/v1/completions`."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def whole_choice(self, row: AnswerRow) -> dict[str, Any]:
        """See `AnswerFormat.whole_choice`."""
        return {"text": row.text, "logprobs": self._logprobs(row.logprobs, row.settings.top_logprobs is not None)}

    def delta(self, event: RowEvent) -> dict[str, Any]:
        """See `AnswerFormat.delta`."""
        return {"text": event.text, "logprobs": self._logprobs(event.logprobs, bool(event.logprobs))}

    def _logprobs(self, entries: Sequence[TokenLogProbs], is_wanted: bool) -> dict[str, Any] | None:
        if not is_wanted:
            return None
        return {
            "tokens": [self.token_text(e.token) for e in entries],
            "token_logprobs": [e.log_probability for e in entries],
            "top_logprobs": [{self.token_text(token): value for token, value in e.top} for e in entries],
        }


def c2c_report(row: AnswerRow) -> dict[str, Any]:
    """The object `c2c` of an answer: what crossed between the models, and when."""
    seconds = {"queue_seconds": "queue", "first_token_seconds": "first_token", "seconds": "total"}
    report: dict[str, Any] = {name: round(row.seconds[key], 6) for name, key in seconds.items() if key in row.seconds}
    report["completion_tokens"] = len(row.ids)
    report |= {name: row.facts[name] for name in _FACTS if name in row.facts}
    return report if row.ended_by is None else {**report, "ended_by": row.ended_by}


def usage(rows: Sequence[AnswerRow]) -> dict[str, Any]:
    """Token counts of a request; several answers to one prompt count its tokens once."""
    prompts = list({id(row.prompt): row for row in rows}.values())

    def total(name: str, counted: Sequence[AnswerRow]) -> int:
        return sum(row.facts.get(name, 0) for row in counted)

    prompt_tokens, completion_tokens = total("prompt_tokens", prompts), sum(len(row.ids) for row in rows)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": total("cached_tokens", prompts),
            "sharer_tokens": total("sharer_tokens", prompts),
        },
        "completion_tokens_details": {"message_tokens": total("message_tokens", rows)},
    }

"""One answer while it is generated: its tokens, its text, and why it ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from c2c_lightning.serving.request_control import EndedBy, RequestControl
from c2c_lightning.serving.text_stream import TextStream

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class AnswerSettings:
    """How one answer is generated.

    Attributes:
        max_tokens: longest answer, in tokens.
        temperature: 0 takes the likeliest token.
        top_p: samples from the likeliest tokens with this sum of probabilities.
        seed: of the answer's own random numbers; None for a random one.
        stop: texts that end the answer, and are not part of it.
        top_logprobs: number of alternatives of each token to report; None without log-probabilities.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probability of a generated token in nats, and of the likeliest tokens: (token id, log-probability)."""

    token: int
    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class RowEvent:
    """News of an answer.

    Attributes:
        row: number of the answer in its request.
        text: new text.
        logprobs: log-probabilities of the tokens since the last event.
        message: new text of the sharer's message (text-to-text).
        is_end: whether the answer has ended.
    """

    row: int
    text: str = ""
    logprobs: tuple[TokenLogProbs, ...] = ()
    message: str = ""
    is_end: bool = False


Listener = Callable[[RowEvent], None]


@dataclass(eq=False)
class AnswerRow:
    """One answer of a request, filled by the inference thread.

    Attributes:
        prompt: what `ServedModel.prepare` made of the conversation.
        settings: how it is generated.
        control: ends it from outside.
        listener: is given its events.
        number: its number in the request.
        wants_detail: whether gates, fused tokens and the message are reported.
        facts: what is reported besides the answer.
        ids: generated tokens.
        logprobs: their log-probabilities, if wanted.
        finish_reason: why it ended; None while it runs.
        error: why it failed.
        seconds: `queue`, `first_token`, `total`: since the request's arrival.
    """

    prompt: Any
    settings: AnswerSettings
    control: RequestControl
    listener: Listener | None = None
    number: int = 0
    wants_detail: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogProbs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    arrival: float = field(default_factory=time.monotonic)
    _stream: TextStream | None = None
    _sent_logprobs: int = 0

    def begin(self, tokenizer: Any) -> None:
        """Prepare for the first token."""
        self._stream = TextStream(tokenizer, self.settings.stop)
        self.mark("queue")

    def mark(self, name: str) -> None:
        """Note the seconds since the arrival once."""
        self.seconds.setdefault(name, time.monotonic() - self.arrival)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "" if self._stream is None else self._stream.text

    @property
    def is_done(self) -> bool:
        """Whether it has ended, or failed."""
        return self.finish_reason is not None or self.error is not None

    @property
    def ended_by(self) -> EndedBy | None:
        """Who ended it before its own end."""
        return self.control.ended_by if self.finish_reason == "length" else None

    def push(self, token: int, is_end_token: bool, logprobs: TokenLogProbs | None = None) -> bool:
        """Take the next token; whether the answer ends with it."""
        assert self._stream is not None, "`begin` comes first"
        self.mark("first_token")
        self.ids.append(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        new = self._stream.push(token)
        reason = self._reason(is_end_token)
        if reason is None and new:
            self._send(new)
        elif reason is not None:
            self._end(reason, new)
        return reason is not None

    def _reason(self, is_end_token: bool) -> FinishReason | None:
        assert self._stream is not None
        if is_end_token or self._stream.is_stopped:
            return "stop"
        return "length" if len(self.ids) >= self.settings.max_tokens or self.control.must_end else None

    def end_early(self) -> None:
        """End without another token."""
        if not self.is_done:
            self._end("length", "")

    def _end(self, reason: FinishReason, new: str) -> None:
        rest = "" if self._stream is None else self._stream.finish()
        # A stop string may be complete only in the text that `finish` adds.
        is_stopped = self._stream is not None and self._stream.is_stopped
        self.finish_reason = "stop" if is_stopped else reason
        self.mark("total")
        self._send(new + rest, is_end=True)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        if not self.is_done:
            self.error = error
            self.mark("total")
            self._send("", is_end=True)

    def _send(self, text: str, is_end: bool = False) -> None:
        new = tuple(self.logprobs[self._sent_logprobs :])
        self._sent_logprobs = len(self.logprobs)
        if self.listener is not None:
            self.listener(RowEvent(self.number, text, new, is_end=is_end))

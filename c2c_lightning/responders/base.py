"""What answers conversations. Evaluation does not know which responder it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from c2c_lightning.data.messages import Conversation


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: what was said.
        seconds: wall time, an equal share of its batch's.
        prompt_tokens: tokens that the answering model read.
        new_tokens: tokens that it wrote.
        message: the text that was handed over on the way (text-to-text), if any.
        log_probability: mean log-probability of a written token, in nats, where it was asked for.
        phases: seconds of each phase (prefill of sharer and receiver, fusing, decoding, message), where measured.
        sharer_tokens: tokens that sharers read on the way.
        message_tokens: tokens of the message.
    """

    text: str
    seconds: float
    prompt_tokens: int
    new_tokens: int
    message: str | None = None
    log_probability: float | None = None
    phases: Mapping[str, float] | None = None
    sharer_tokens: int = 0
    message_tokens: int = 0


@runtime_checkable
class Responder(Protocol):
    """Anything that answers: one model, two that talk, two that share a cache.

    Attributes:
        name: how it is called in reports.
    """

    name: str

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations, each ending with the user's turn."""
        ...

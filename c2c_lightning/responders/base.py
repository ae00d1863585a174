"""The interface of a responder: conversations in, answers out. Evaluation does not know which responder it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from c2c_lightning.data.messages import Conversation


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: the generated text, without special tokens.
        seconds: wall time; each answer of a batch has an equal share.
        prompt_tokens: prompt tokens of the answering model.
        new_tokens: generated tokens.
        message: text passed between the models (text-to-text).
        log_probability: mean log-probability of a generated token, in nats, where recorded.
        phases: seconds of each phase (prefill of sharer and receiver, fusion, decoding, message), where measured.
        sharer_tokens: prompt tokens of all sharers.
        message_tokens: tokens of the message.
        shifted_positions: whether the receiver's prompt has positions that are not the count of its tokens (the
            released token alignments leave padding between messages, and the padding counts).
        matches_unfused: for the control `gates_closed`, whether the receiver gives the same answer in the same passes
            without any sharer.
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
    shifted_positions: bool = False
    matches_unfused: bool | None = None


@runtime_checkable
class Responder(Protocol):
    """A model, or several that communicate, answering conversations.

    Attributes:
        name: name in reports.
    """

    name: str

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations, each of which ends with the user's turn."""
        ...

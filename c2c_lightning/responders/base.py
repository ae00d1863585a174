"""The interface of a responder: conversations in, answers out. Evaluation does not know which responder it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from c2c_lightning.data.messages import Conversation


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Cost and circumstances of an answer, or of the scores of given answers.

    Attributes:
        seconds: wall time; a batch's time is divided equally among its replies.
        prompt_tokens: prompt tokens of the answering model.
        message: text passed between the models (text-to-text).
        phases: seconds of each phase (prefill of sharer and receiver, fusion, decoding, message), where measured.
        sharer_tokens: prompt tokens of all sharers.
        message_tokens: tokens of the message.
        bytes_sent: bytes that the sharers send: entries of the mapped layers at the tokens that are read, or the text.
        shifted_positions: whether the receiver's prompt has positions that are not the count of its tokens (the
            released token alignments leave padding between messages, and the padding counts).
        matches_unfused: for the control `gates_closed`, whether the receiver gives the same reply in the same passes
            without any sharer.
    """

    seconds: float = 0.0
    prompt_tokens: int = 0
    message: str | None = None
    phases: dict[str, float] | None = None
    sharer_tokens: int = 0
    message_tokens: int = 0
    bytes_sent: int = 0
    shifted_positions: bool = False
    matches_unfused: bool | None = None


@dataclass(frozen=True)
class Answer(Reply):
    """One answer.

    Attributes:
        text: the generated text, without special tokens.
        new_tokens: generated tokens, up to and including the end token.
        log_probability: mean log-probability of a generated token, in nats, where recorded.
    """

    text: str
    new_tokens: int = 0
    log_probability: float | None = None


@dataclass(frozen=True)
class OptionScores(Reply):
    """Log-probabilities of given answers (options) to one prompt.

    Attributes:
        log_probabilities: sum over the tokens of each option, in nats.
        num_tokens: tokens of each option.
        is_greedy: whether greedy decoding would generate the option.
    """

    log_probabilities: tuple[float, ...]
    num_tokens: tuple[int, ...]
    is_greedy: tuple[bool, ...]


@runtime_checkable
class Responder(Protocol):
    """A model, or several that communicate, answering batches of conversations, each of which ends with a user's turn.

    Attributes:
        name: name in reports.
    """

    name: str

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer; `generate_kwargs` are those of transformers' `generate`."""
        ...

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option as the whole answer; needed for modes letter and cloze only (`can_score`)."""
        ...

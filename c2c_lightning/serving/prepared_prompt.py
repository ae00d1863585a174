"""A conversation that is encoded for one served model, with the choices of its request."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from c2c_lightning.data.encode import EncodedPrompt
from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import PromptError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.serving.gate_choices import GateChoice


class TooLongError(PromptError):
    """A prompt that is longer than the context of a model, or leaves no room for an answer."""


@dataclass(frozen=True)
class C2CChoices:
    """The request's field `c2c`.

    Attributes:
        sharer_messages: the sharers' conversation, or one for each; None for the receiver's.
        active_sharers: numbers of the sharers that take part; None for all.
        gates: the gates.
        is_mismatched: whether the sharers read another question (the control).
        donor_messages: that question; None for one of the server's.
    """

    sharer_messages: Any = None
    active_sharers: tuple[int, ...] | None = None
    gates: GateChoice = "trained"
    is_mismatched: bool = False
    donor_messages: Conversation | None = None

    def conversation_of(self, number: int, receiver: Conversation) -> Conversation:
        """What one sharer reads.

        Args:
            number: of the sharer.
            receiver: the receiver's conversation.

        Raises:
            PromptError: there are conversations for fewer sharers.
        """
        given = self.sharer_messages
        if given is None or isinstance(given[0], Mapping):
            return given or receiver
        if number >= len(given):
            raise PromptError(f"`sharer_messages` has {len(given)} conversations, none for sharer {number}.")
        return given[number] or receiver


@dataclass(frozen=True)
class PreparedPrompt:
    """An encoded prompt.

    Attributes:
        encoded: the tokens of all models.
        group: prompts of one group are answered in one batch.
        room: new tokens that fit into the context behind it.
        choices: the choices of its request.
        donor: the prompt of another question whose tokens the sharers read instead.
        facts: reported with the answer.
        conversation: the messages, for models that make further prompts of them.
    """

    encoded: EncodedPrompt
    group: Hashable
    room: int
    choices: C2CChoices
    donor: EncodedPrompt | None = None
    facts: tuple[tuple[str, Any], ...] = ()
    conversation: Conversation | None = None

    @property
    def num_tokens(self) -> int:
        """The prompt's tokens of the answering model."""
        mask = self.encoded.attention_mask
        return len(self.encoded.receiver_ids) if mask is None else sum(mask)


def answer_room(lm: FrozenLM, encoded: EncodedPrompt) -> int:
    """Number of new tokens that fit into a model's context.

    Raises:
        TooLongError: with the length of the prompt and that of the context.
    """
    positions = encoded.position_ids
    length = len(encoded.receiver_ids) if positions is None else max(positions) + 1
    check_length(length, lm)
    # The last token is generated, but never processed.
    return 2**31 if lm.max_tokens is None else lm.max_tokens + 1 - length


def check_length(length: int, lm: FrozenLM) -> None:
    """Refuse a prompt that is longer than a model's context, with both lengths."""
    if lm.max_tokens is not None and length > lm.max_tokens:
        raise TooLongError(
            f"The prompt has {length} tokens, but the context of the model has {lm.max_tokens}. Shorten the prompt."
        )

"""A benchmark question as a prompt: the receiver's conversation with everything else that models read of it."""

from collections.abc import Iterable, Sequence
from typing import Self

from c2c_lightning.data.messages import Conversation, Message


class QuestionPrompt(list[Message]):
    """The receiver's conversation of one question.

    The sharers' conversation travels with it instead of being looked up, so that questions with the same wording and
    different private documents never share one.

    Args:
        messages: the receiver's conversation.
        question: the question without choices and instructions, which the paper's message prompt quotes; default the
            last message.
        sharer: the sharers' conversation, which differs from the receiver's under private context.
        choices: texts of the choices, empty for free answers.
    """

    def __init__(
        self,
        messages: Iterable[Message],
        question: str | None = None,
        sharer: Conversation | None = None,
        choices: Sequence[str] = (),
    ) -> None:
        super().__init__(messages)
        self.question: str = self[-1]["content"] if question is None else question
        self.sharer: Conversation = list(self) if sharer is None else sharer
        # The sharers' last message may quote private context with the question, which the message needs.
        self.sharer_question: str = self.question if sharer is None else sharer[-1]["content"]
        self.choices = tuple(choices)

    @property
    def document(self) -> str:
        """The private text that sharers read in front of the question; empty where there is none."""
        return self.sharer_question.removesuffix(self.question)

    @property
    def without_document(self) -> Conversation:
        """The sharers' conversation with the receiver's question as last message: worked examples stay."""
        return [*self.sharer[:-1], self[-1]]

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        """A conversation as a prompt; all models read a bare one, and its last message is the question."""
        return conversation if isinstance(conversation, cls) else cls(conversation)

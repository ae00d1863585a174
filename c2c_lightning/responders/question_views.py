"""What each model is shown of one question."""

from collections.abc import Callable
from dataclasses import dataclass

from c2c_lightning.data.messages import Conversation


@dataclass(frozen=True)
class View:
    """What belongs to a conversation besides its text.

    Attributes:
        question: the receiver's question without choices and instructions; the paper's message prompt quotes it.
        sharer: the conversation that sharers read; another than the receiver's where they know more (private context).
        sharer_question: the question that sharers are asked to comment on.
    """

    question: str
    sharer: Conversation
    sharer_question: str


ViewOf = Callable[[Conversation], View]
"""Finds the view of a conversation; benchmarks have one that knows their questions."""


def plain_view(conversation: Conversation) -> View:
    """The view of a bare conversation: the last message is the question, and everybody reads the same."""
    question = conversation[-1]["content"]
    return View(question, conversation, question)

"""Text-to-text communication: the sharer writes a message, the receiver reads it (paper, section 4.1 and Text 3)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from c2c_lightning.data.messages import Conversation
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.option_scoring import OptionScores
from c2c_lightning.responders.prompt_texts import TEXT_3, fill
from c2c_lightning.responders.question_views import ViewOf, plain_view
from c2c_lightning.responders.single_model import SingleModel

Said = TypeVar("Said", Answer, OptionScores)


class TextToText:
    """The sharer is asked for background, and the receiver answers after three turns.

    The receiver sees the message prompt as the user's turn, the sharer's message as the assistant's, then the question.

    Attributes:
        name: how it is called in reports.
        message_prompt: template of the request, with `{question}`.
        message_max_new_tokens: limit of a message, in tokens (the paper's is 256).
    """

    def __init__(
        self,
        receiver: SingleModel,
        sharer: SingleModel,
        message_prompt: str = TEXT_3,
        message_max_new_tokens: int = 256,
        view: ViewOf = plain_view,
        name: str = "t2t",
    ) -> None:
        """Put two models in touch.

        Args:
            receiver: answers.
            sharer: writes the message.
            message_prompt: what the sharer is asked.
            message_max_new_tokens: limit of a message.
            view: finds the question without its choices.
            name: how to call it in reports.

        Raises:
            BenchmarkError: the message prompt has an unknown placeholder.
        """
        fill(message_prompt, question="")
        self.receiver, self.sharer, self.view, self.name = receiver, sharer, view, name
        self.message_prompt, self.message_max_new_tokens = message_prompt, message_max_new_tokens

    def request(self, conversation: Conversation) -> Conversation:
        """What the sharer is asked."""
        view = self.view(conversation)
        return [*view.sharer[:-1], self._message_prompt(view.sharer_question)]

    def turns(self, conversation: Conversation, message: str) -> Conversation:
        """What the receiver sees: the request, the message, the question."""
        request = self._message_prompt(self.view(conversation).question)
        return [*conversation[:-1], request, _said(message), conversation[-1]]

    def sharer_turns(self, conversation: Conversation, message: str) -> Conversation:
        """The same turns over what sharers are shown; text and cache together (T-C2C) fuse this cache."""
        shown = self.view(conversation).sharer
        return [*self.request(conversation), _said(message), shown[-1]]

    def _message_prompt(self, question: str) -> dict[str, str]:
        return {"role": "user", "content": fill(self.message_prompt, question=question)}

    def messages(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """The sharer's messages; its limit is its own, whatever the answer's is."""
        limits = {"max_length": None, "max_new_tokens": self.message_max_new_tokens}
        return self.sharer.respond([self.request(c) for c in conversations], **(generate_kwargs | limits))

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch of conversations.

        Args:
            conversations: each ends with the user's turn.
            **generate_kwargs: for both models; `max_new_tokens` is the answer's.
        """
        messages = self.messages(conversations, **generate_kwargs)
        answers = self.receiver.respond(self._all_turns(conversations, messages), **generate_kwargs)
        return [with_message(answer, message) for answer, message in zip(answers, messages, strict=True)]

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option after the three turns."""
        messages = self.messages(conversations, do_sample=False)
        scores = self.receiver.score(self._all_turns(conversations, messages), options)
        return [with_message(score, message) for score, message in zip(scores, messages, strict=True)]

    def _all_turns(self, conversations: Sequence[Conversation], messages: Sequence[Answer]) -> list[Conversation]:
        pairs = zip(conversations, messages, strict=True)
        return [self.turns(conversation, message.text) for conversation, message in pairs]


class AnswerAsMessage(TextToText):
    """The message is the sharer's own full answer to the question, choices and all."""

    def request(self, conversation: Conversation) -> Conversation:
        """The question itself."""
        return self.view(conversation).sharer

    def turns(self, conversation: Conversation, message: str) -> Conversation:
        """The question, the sharer's answer, and the question again."""
        return [*conversation, _said(message), conversation[-1]]


def _said(message: str) -> dict[str, str]:
    return {"role": "assistant", "content": message.strip()}


def with_message(answer: Said, message: Answer) -> Said:
    """An answer, or scores, with the message that led to it, and the time and tokens that took."""
    return replace(
        answer,
        seconds=answer.seconds + message.seconds,
        message=message.text,
        phases={**(answer.phases or {}), "message": message.seconds},
        sharer_tokens=answer.sharer_tokens + message.prompt_tokens,
        message_tokens=message.new_tokens,
    )

"""Text-to-text communication: the sharer writes a message that the receiver reads (paper, section 4.1 and Text 3)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from c2c_lightning.data.messages import Conversation
from c2c_lightning.responders.base import Answer, OptionScores, Responder
from c2c_lightning.responders.next_turn import NextTurn
from c2c_lightning.responders.prompt_texts import TEXT_3, fill
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import AnyReply, SingleModel


class TextToText:
    """The sharer writes background knowledge, and the receiver answers after three turns.

    The receiver reads the message prompt as the user's turn, the sharer's message as the assistant's, then the
    question. Where the receiver is a `C2CResponder`, the sharer's cache over the same turns is fused too (T-C2C,
    paper, table 15).

    Args:
        receiver: answers.
        sharer: writes the message.
        message_prompt: template of the request, with `{question}`.
        message_max_new_tokens: limit of a message, in tokens (paper: 256).
        name: name in reports.

    Raises:
        BenchmarkError: the message prompt has an unknown placeholder.
    """

    def __init__(
        self,
        receiver: Responder,
        sharer: SingleModel,
        message_prompt: str = TEXT_3,
        message_max_new_tokens: int = 256,
        name: str = "t2t",
    ) -> None:
        fill(message_prompt, question="")
        self.receiver, self.sharer, self.name = receiver, sharer, name
        self.message_prompt, self.message_max_new_tokens = message_prompt, message_max_new_tokens

    def request(self, conversation: Conversation) -> Conversation:
        """The sharer's prompt for its message."""
        prompt = QuestionPrompt.of(conversation)
        return [*prompt.sharer[:-1], self._message_prompt(prompt.sharer_question)]

    def turns(self, conversation: Conversation, message: str) -> Conversation:
        """The receiver's prompt: request, message, question."""
        request = self._message_prompt(QuestionPrompt.of(conversation).question)
        return [*conversation[:-1], request, _assistant(message), conversation[-1]]

    def _message_prompt(self, question: str) -> dict[str, str]:
        return {"role": "user", "content": fill(self.message_prompt, question=question)}

    def messages(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """The sharer's messages, whose length limit is independent of the answer's.

        A message ends where the sharer begins another turn, as base models do.
        """
        # transformers prefers `max_new_tokens` to `max_length`, but warns if both are set.
        limits: dict[str, Any] = {"max_length": None, "max_new_tokens": self.message_max_new_tokens}
        next_turn = self.sharer.encoder.receiver_tokenizer.next_turn
        if next_turn:
            others = generate_kwargs.get("stopping_criteria") or ()
            limits["stopping_criteria"] = [*others, NextTurn(self.sharer.lm.tokenizer, next_turn)]
        messages = self.sharer.respond([self.request(c) for c in conversations], **(generate_kwargs | limits))
        return [replace(message, text=_before(message.text, next_turn)) for message in messages]

    def respond(self, conversations: Sequence[Conversation], **generate_kwargs: Any) -> list[Answer]:
        """Answer a batch; `generate_kwargs` are for both models, `max_new_tokens` for the answer alone."""
        messages = self.messages(conversations, **generate_kwargs)
        answers = self.receiver.respond(self.prompts(conversations, messages), **generate_kwargs)
        return list(map(_with_message, answers, messages))

    def score(self, conversations: Sequence[Conversation], options: Sequence[Sequence[str]]) -> list[OptionScores]:
        """Log-probability of each option after the three turns."""
        messages = self.messages(conversations, do_sample=False)
        scores = self.receiver.score(self.prompts(conversations, messages), options)
        return list(map(_with_message, scores, messages))

    def prompts(self, conversations: Sequence[Conversation], messages: Sequence[Answer]) -> list[QuestionPrompt]:
        """The receiver's turns, and the same turns after the sharers' (private) context, which only T-C2C reads."""
        prompts = []
        for conversation, message in zip(conversations, messages, strict=True):
            question = QuestionPrompt.of(conversation).sharer[-1]
            sharer = [*self.request(conversation), _assistant(message.text), question]
            prompts.append(QuestionPrompt(self.turns(conversation, message.text), sharer=sharer))
        return prompts


class AnswerAsMessage(TextToText):
    """The message is the sharer's own answer to the whole question, choices included."""

    def request(self, conversation: Conversation) -> Conversation:
        """The question itself."""
        return QuestionPrompt.of(conversation).sharer

    def turns(self, conversation: Conversation, message: str) -> Conversation:
        """The question, the sharer's answer, and the question again."""
        return [*conversation, _assistant(message), conversation[-1]]


def _before(text: str, end: str) -> str:
    """The text in front of the first `end`, which may be empty for none."""
    return text.split(end, 1)[0] if end else text


def _assistant(message: str) -> dict[str, str]:
    return {"role": "assistant", "content": message.strip()}


def _with_message(reply: AnyReply, message: Answer) -> AnyReply:
    """A reply with the message before it; the message's time and tokens are added."""
    return replace(
        reply,
        seconds=reply.seconds + message.seconds,
        message=message.text,
        phases={**(reply.phases or {}), "message": message.seconds},
        sharer_tokens=reply.sharer_tokens + message.prompt_tokens,
        message_tokens=message.new_tokens,
        bytes_sent=reply.bytes_sent + len(message.text.encode()),
    )

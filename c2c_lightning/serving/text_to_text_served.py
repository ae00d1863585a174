"""Text-to-text as a served model: the sharer's message first, then the receiver's answer, each in one batch."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import PromptError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.registry import T2T
from c2c_lightning.responders.responder_factory import ModelBundle
from c2c_lightning.serving.answer_row import AnswerRow, AnswerSettings, RowEvent
from c2c_lightning.serving.prepared_prompt import C2CChoices, PreparedPrompt, answer_room
from c2c_lightning.serving.served_models import ServedModel, SingleServed


class TextToTextServed(ServedModel):
    """The sharer writes a message that the receiver reads.

    Args:
        name: its name.
        receiver: answers.
        sharer: writes the message.
        choices: prompt and length of the message.
    """

    kind = "t2t"

    def __init__(self, name: str, receiver: SingleServed, sharer: SingleServed, choices: T2T | None = None) -> None:
        self.name, self.receiver_alone, self.sharer_alone = name, receiver, sharer
        # Its turns only: the passes are those of the two served models.
        self.turns = (choices or T2T()).build(ModelBundle(receiver.receiver, (sharer.receiver,)))

    @property
    def receiver(self) -> FrozenLM:
        """The model that answers."""
        return self.receiver_alone.receiver

    @property
    def sharers(self) -> tuple[FrozenLM, ...]:
        """The model that writes the message."""
        return (self.sharer_alone.receiver,)

    def prepare(self, conversation: Conversation, choices: C2CChoices) -> PreparedPrompt:
        """The sharer's request, and the receiver's prompt so far, which must fit without the message."""
        sharer = choices.conversation_of(self.sharer_alone.number, conversation)
        question = QuestionPrompt(conversation, sharer=sharer)
        answer = self.receiver_alone.prepare(self._turns(question, ""), C2CChoices())
        request = self.sharer_alone.encoder.encode(self.turns.request(question))
        prompt = self.sharer_alone.prepared(request, choices)
        return replace(prompt, group=self.name, room=answer.room, conversation=question)

    def _turns(self, question: Any, message: str) -> Conversation:
        return list(self.turns.prompts([question], [Answer(message)])[0])

    def prepare_text(self, text: str, choices: C2CChoices) -> PreparedPrompt:
        """Text-to-text has turns, so that it cannot continue a bare text."""
        raise PromptError(f"The model {self.name!r} needs a conversation: use /v1/chat/completions.")

    def answer(self, rows: Sequence[AnswerRow]) -> None:
        """See `ServedModel.answer`."""
        start = time.monotonic()
        for row in rows:
            row.mark("queue")
        messages = [self._message_row(row) for row in rows]
        self.sharer_alone.answer(messages)
        ready, prompts = [], []
        for row, message in zip(rows, messages, strict=True):
            row.facts |= {
                "sharer_tokens": message.facts.get("prompt_tokens", 0),
                "message_tokens": len(message.ids),
                "message_seconds": round(time.monotonic() - start, 6),
                "message": message.text,
            }
            if (prompt := self._answer_prompt(row, message)) is not None:
                ready.append(row)
                prompts.append(prompt)
        if ready:
            self.receiver_alone.answer_prompts(ready, prompts)

    def _message_row(self, row: AnswerRow) -> AnswerRow:
        """The message of an answer, which ends with it."""
        room = answer_room(self.sharers[0], row.prompt.encoded)
        limit = min(self.turns.message_max_new_tokens, room)
        next_turn = self.sharer_alone.encoder.receiver_tokenizer.next_turn
        stop = (next_turn,) if next_turn else ()
        settings = AnswerSettings(limit, row.settings.temperature, row.settings.top_p, row.settings.seed, stop)

        def forward(event: RowEvent) -> None:
            if row.listener is not None and event.text:
                row.listener(RowEvent(row.number, message=event.text))

        listener = forward if row.wants_detail else None
        return AnswerRow(replace(row.prompt, room=room), settings, row.control, listener, row.number)

    def _answer_prompt(self, row: AnswerRow, message: AnswerRow) -> PreparedPrompt | None:
        """The receiver's prompt; None where the answer has ended, or the message leaves no room for it."""
        if row.control.must_end:
            row.end_early()
            return None
        try:
            prompt = self.receiver_alone.prepare(self._turns(row.prompt.conversation, message.text), C2CChoices())
        except PromptError as error:
            row.fail(error)
            return None
        row.settings = replace(row.settings, max_tokens=min(row.settings.max_tokens, prompt.room))
        return prompt

"""One question of a benchmark, and how models are shown it."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.data.messages import Conversation
from c2c_lightning.evaluation.tasks.prompts import Wording, letter
from c2c_lightning.responders.question_views import View, plain_view


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        index: number of its row in the benchmark; predictions are found again by it.
        id: name of the row.
        text: the question without its choices.
        choices: texts of the choices; empty for free answers.
        answer: index of the right choice, None for free answers.
        references: right free answers, any of which counts.
        subject: field of knowledge, for accuracy by subject.
        sharer: what sharers read instead, where they know more than the receiver (private context).
        task: task of LongBench, which sets how it is scored.
        classes: all labels of a classification (LongBench).
    """

    index: int
    id: str
    text: str
    choices: tuple[str, ...] = ()
    answer: int | None = None
    references: tuple[str, ...] = ()
    subject: str = ""
    sharer: tuple[tuple[str, str], ...] | None = None
    task: str = ""
    classes: tuple[str, ...] = ()

    @property
    def gold(self) -> str:
        """The right answer as text."""
        return self.references[0] if self.answer is None else self.choices[self.answer]

    @property
    def gold_letter(self) -> str:
        """The letter of the right choice, empty for free answers."""
        return "" if self.answer is None else letter(self.answer)

    def conversation(self, wording: Wording) -> Conversation:
        """What the receiver is asked."""
        prompt = wording.render(self.text, self.choices, self.subject.replace("_", " "))
        return [{"role": "user", "content": prompt}]


class QuestionViews:
    """Finds what belongs to a conversation of a benchmark: its question, and what sharers read."""

    def __init__(self, questions: Sequence[Question], wording: Wording) -> None:
        """Take the questions as they are worded."""
        self._by_prompt = {q.conversation(wording)[-1]["content"]: q for q in questions}

    def __call__(self, conversation: Conversation) -> View:
        """The view of one conversation; that of a bare conversation for one that is not of the benchmark."""
        question = self._by_prompt.get(conversation[-1]["content"])
        if question is None:
            return plain_view(conversation)
        if question.sharer is None:
            return View(question.text, conversation, question.text)
        sharer = [{"role": role, "content": content} for role, content in question.sharer]
        return View(question.text, sharer, sharer[-1]["content"])

"""One question of a benchmark, and its prompt."""

from dataclasses import dataclass

from c2c_lightning.data.messages import Message
from c2c_lightning.evaluation.tasks.prompts import Wording, letter
from c2c_lightning.responders.question_prompt import QuestionPrompt


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        index: number of its row in the benchmark, the key of its predictions.
        text: the question without its choices.
        answer: index of the right choice, None for free answers.
        also_right: indices of further right choices.
        references: right free answers, each of which counts.
        history: the receiver's messages before the question.
        sharer: the sharers' conversation under private context; None for the receiver's.
        task: task of LongBench, which decides the metric.
        classes: all labels of a classification (LongBench).
    """

    index: int
    id: str
    text: str
    choices: tuple[str, ...] = ()
    answer: int | None = None
    also_right: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    subject: str = ""
    history: tuple[Message, ...] = ()
    sharer: tuple[Message, ...] | None = None
    task: str = ""
    classes: tuple[str, ...] = ()

    @property
    def right(self) -> tuple[int, ...]:
        """Indices of all right choices, empty for free answers."""
        return () if self.answer is None else (self.answer, *self.also_right)

    @property
    def gold(self) -> str:
        """The right answer as text."""
        return self.references[0] if self.answer is None else self.choices[self.answer]

    @property
    def gold_letter(self) -> str:
        """The letters of the right choices, empty for free answers."""
        return ", ".join(map(letter, self.right))

    def prompt(self, wording: Wording) -> QuestionPrompt:
        """The receiver's conversation, together with the sharers'."""
        # Subsets of the hub are named like `high_school_physics`.
        content = wording.render(self.text, self.choices, self.subject.replace("_", " "))
        messages = [*self.history, {"role": "user", "content": content}]
        return QuestionPrompt(messages, self.text, None if self.sharer is None else list(self.sharer), self.choices)

"""Plain-text prompts with shots (worked examples) in front of a question: Text 4 of the paper, or a template."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from transformers import PreTrainedTokenizerBase

from c2c_lightning.evaluation.tasks import Question
from c2c_lightning.evaluation.tasks.prompts import letter
from c2c_lightning.responders.prompt_texts import fill

OptionScoring = Literal["letter", "choice"]
"""Whether an option is the letter of a choice, or its text."""


@dataclass(frozen=True)
class ShotTemplate:
    """Template of a prompt with shots; a shot is `question`, `cue`, `answer` and `end`, the prompt ends with the cue.

    Attributes:
        header: text in front of the shots; `{subject}` is the field of knowledge.
        question: `{question}`, and `{choices}` with their letters, one a line.
        cue: text between a question and its answer.
        answer: `{answer}`, the letter or the text of a choice.
        end: text behind a shot.
    """

    header: str = "The following are single choice questions (with answers) about {subject}.\n\n"
    question: str = "Question: {question}\nOptions:\n{choices}\n"
    cue: str = "Answer:"
    answer: str = " {answer}"
    end: str = "\n\n"

    def __post_init__(self) -> None:
        """BenchmarkError for an unknown placeholder."""
        for field in fields(self):
            fill(getattr(self, field.name), subject="", question="", choices="", answer="")


_ABOUT = " about {subject}"

#: Text 4 of the paper. Options that are texts are not listed in the question: the letters would be of no use.
TEXT_4 = ShotTemplate()
TEMPLATES: dict[OptionScoring, ShotTemplate] = {
    "letter": TEXT_4,
    "choice": ShotTemplate(question="Question: {question}\n"),
}


@dataclass(frozen=True)
class PromptParts:
    """Token ids of the parts of a few-shot prompt, each encoded on its own, so that they are the same in all prompts.

    Attributes:
        header: with the tokens that begin a text.
        shots: all of them.
        question: without its cue.
        cue: the last tokens of the prompt.
        options: continuation of the prompt for each choice.
    """

    header: tuple[int, ...]
    shots: tuple[int, ...]
    question: tuple[int, ...]
    cue: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        """Length of the few-shot prompt with its longest option, in tokens."""
        return len(self.header) + len(self.shots) + len(self.question) + 2 * len(self.cue) + max(map(len, self.options))


@dataclass(frozen=True)
class ShotQuestion:
    """A question with its prompt."""

    question: Question
    parts: PromptParts

    @property
    def key(self) -> str:
        """Its key in logs."""
        return str(self.question.index)


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes questions with shots.

    Attributes:
        tokenizer: of the model.
        template: texts around questions and answers.
        scoring: form of the answers.
        doubles_cue: whether the answers of shots have the cue twice, a fault of the released code.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ShotTemplate
    scoring: OptionScoring
    doubles_cue: bool = False

    def context(self, question: Question, shots: Sequence[Question]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of header and shots, which are the same for all questions of a subject."""
        return (*self._beginning(), *self._ids(self._header(question))), self._ids("".join(map(self._shot, shots)))

    def encode(self, question: Question, context: tuple[tuple[int, ...], tuple[int, ...]]) -> PromptParts:
        """The parts of a question's few-shot prompt behind header and shots."""
        options = tuple(self._ids(self._answer(question, n)) for n in range(len(question.choices)))
        return PromptParts(*context, self._ids(self._question(question)), self._ids(self.template.cue), options)

    def text(self, question: Question, shots: Sequence[Question]) -> str:
        """The few-shot prompt as text; without shots the direct prompt."""
        return self._header(question) + "".join(map(self._shot, shots)) + self._question(question) + self.template.cue

    def _header(self, question: Question) -> str:
        header = self.template.header
        # Rows without a subject: the sentence ends before it.
        return fill(header if question.subject else header.replace(_ABOUT, ""), subject=_subject(question))

    def _shot(self, question: Question) -> str:
        cue = f"{self.template.cue} {self.template.cue}" if self.doubles_cue else self.template.cue
        return self._question(question) + cue + self._answer(question, question.right[0]) + self.template.end

    def _question(self, question: Question) -> str:
        lines = "\n".join(f"{letter(n)}. {text}" for n, text in enumerate(question.choices))
        return fill(self.template.question, question=question.text, choices=lines, subject=_subject(question))

    def _answer(self, question: Question, choice: int) -> str:
        answer = letter(choice) if self.scoring == "letter" else question.choices[choice]
        return fill(self.template.answer, answer=answer)

    def _ids(self, text: str) -> tuple[int, ...]:
        # Not verbose: the length of prompts is checked against the context with a message of its own.
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else ()

    def _beginning(self) -> tuple[int, ...]:
        """The token that the tokenizer puts in front of every text, if it does."""
        first = self.tokenizer("x")["input_ids"][:1]
        return tuple(first) if first == [self.tokenizer.bos_token_id] else ()


def _subject(question: Question) -> str:
    return question.subject.replace("_", " ")

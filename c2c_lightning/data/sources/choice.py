"""Multiple choice, worded as a question and a sentence with the right letter."""

import string
from typing import Any

from c2c_lightning.data.messages import Conversation
from c2c_lightning.data.sources.source import Row, TableSource, exchange, text
from c2c_lightning.errors import DataError

# The training prompt of the published code for MMLU (MMLUChatDataset); evaluation words it otherwise.
QUESTION = "Question: {question}\n\nChoices:\n{choices}"
ANSWER = "The correct answer is {letter}."


class MultipleChoice(TableSource):
    """Rows of `{"question", "choices": [text, ...], "answer": number from 0, or letter}`.

    Args:
        path: see `TableSource`.
        question: wording of the prompt, with `{question}` and `{choices}` (one line each, `A. ...`).
        answer: wording of the response, with `{letter}`, `{choice}` or both.
        **table: see `TableSource`.
    """

    def __init__(self, path: str, question: str = QUESTION, answer: str = ANSWER, **table: Any) -> None:
        super().__init__(path, **table)
        if "{question}" not in question:
            raise DataError("The wording `question` of MultipleChoice needs {question}.")
        if "{letter}" not in answer and "{choice}" not in answer:
            raise DataError("The wording `answer` of MultipleChoice needs {letter} or {choice}.")
        self.question = question
        self.answer = answer

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The worded question and answer."""
        choices = _choices(row)
        number = _number(row.get("answer"), len(choices))
        letters = string.ascii_uppercase
        lines = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False))
        prompt = _fill(self.question, choices=lines, question=text(row, "question"))
        response = _fill(self.answer, letter=letters[number], choice=choices[number])
        return exchange(prompt, response), None


def _choices(row: Row) -> list[str]:
    choices = row.get("choices")
    if isinstance(choices, dict):  # ai2_arc and openbookqa on the hub: {"text": [...], "label": [...]}
        choices = choices.get("text")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError("`choices` must be a list of texts.")
    if not 2 <= len(choices) <= len(string.ascii_uppercase):
        raise DataError(f"There are {len(choices)} `choices`; 2 to 26 can be lettered.")
    return choices


def _number(answer: Any, count: int) -> int:
    """The number of the right choice, from 0, given as a number or as a letter."""
    if isinstance(answer, str) and len(answer) == 1 and answer in string.ascii_uppercase:
        answer = string.ascii_uppercase.index(answer)
    # A bool is an int in Python.
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise DataError(f"`answer` must be a number from 0 or a letter, but is {answer!r}.")
    if not 0 <= answer < count:
        raise DataError(f"`answer` is {answer}, but there are {count} choices, counted from 0.")
    return answer


def _fill(wording: str, **values: str) -> str:
    """Put values into a wording; a value may hold braces, and the last ones given are put in last."""
    for name, value in values.items():
        wording = wording.replace(f"{{{name}}}", value)
    return wording

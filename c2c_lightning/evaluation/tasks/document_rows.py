"""Benchmark rows with a private document, a question and its answers, read as the training source reads them."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.data.sources import PrivateDocuments
from c2c_lightning.errors import BenchmarkError

#: Columns that `columns` may rename, with their default names.
DOCUMENT_COLUMNS = {"document": "document", "question": "question", "answer": "answer", "subject": "source"}


class DocumentRows:
    """Parser of rows for `rows: document`.

    Args:
        path: file of the rows.
        shots: number of worked examples that sharers read first.
        examples: file of the worked examples.
        columns: names of columns that differ from `DOCUMENT_COLUMNS`.

    Raises:
        BenchmarkError: `columns` has an unknown key, or worked examples are asked for without a file.
    """

    def __init__(
        self, path: str, shots: int = 0, examples: str | None = None, columns: Mapping[str, str] | None = None
    ) -> None:
        unknown = [name for name in columns or {} if name not in DOCUMENT_COLUMNS]
        if unknown:
            raise BenchmarkError(f"`columns` has no {unknown[0]!r}. Known are {', '.join(DOCUMENT_COLUMNS)}.")
        if shots and examples is None:
            raise BenchmarkError(
                f"`shots` is {shots}, but there are no worked examples: set `examples` to a file with the same columns."
            )
        names = {**DOCUMENT_COLUMNS, **(columns or {})}
        self.subject = names["subject"]
        self.source = PrivateDocuments(
            path, names["document"], names["question"], names["answer"], shots=shots, examples=examples
        )

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a `Question`; choices are optional, and the first answer is the right one of them."""
        messages, sharer = self.source.messages(row)
        answers = tuple(self.source.answers(row))
        fields = {"text": messages[0]["content"], "sharer": tuple(sharer or ()), "references": answers}
        return {**fields, "subject": str(row.get(self.subject) or ""), **_choices(row, answers[0])}


def _choices(row: Mapping[str, Any], answer: str) -> dict[str, Any]:
    choices = row.get("choices")
    if not choices:
        return {}
    if answer not in choices:
        raise BenchmarkError(f"the answer {answer!r} is none of the choices.")
    return {"choices": tuple(map(str, choices)), "answer": list(choices).index(answer)}

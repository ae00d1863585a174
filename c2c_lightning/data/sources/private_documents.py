"""Documents that only sharers read, with questions that the receiver answers."""

from typing import Any

from c2c_lightning.data.sources.private_text import PrivateText, PrivateTextSource
from c2c_lightning.data.sources.source import Row, text
from c2c_lightning.errors import DataError


class PrivateDocuments(PrivateTextSource):
    """Rows with a document, a question and its answer in three columns.

    Args:
        path: see `TableSource`.
        document_column: the document, a text that is not empty.
        question_column: the question.
        answer_column: the answer, or a list of right answers, of which the first is the response to learn.
        shots: see `PrivateTextSource`; also `examples`.
        examples: the file of the worked examples.
        **table: see `TableSource`.
    """

    def __init__(
        self,
        path: str,
        document_column: str = "document",
        question_column: str = "question",
        answer_column: str = "answer",
        shots: int = 0,
        examples: str | None = None,
        **table: Any,
    ) -> None:
        super().__init__(path, shots, examples, **table)
        self.document_column, self.question_column, self.answer_column = document_column, question_column, answer_column

    def private_text(self, row: Row) -> PrivateText:
        """Document, question and first answer."""
        document = text(row, self.document_column)
        if not document.strip():
            raise DataError(f"`{self.document_column}` is empty: there is nothing that sharers could transfer.")
        return PrivateText(document, text(row, self.question_column), self.answers(row)[0])

    def answers(self, row: Row) -> list[str]:
        """All right answers of a row."""
        value = row.get(self.answer_column)
        if not isinstance(value, list):
            value = [text(row, self.answer_column)]
        if not value or not all(isinstance(answer, str) and answer.strip() for answer in value):
            raise DataError(f"`{self.answer_column}` must be a text or a list of texts, none of them empty.")
        return value

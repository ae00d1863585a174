"""Documents that only sharers read, with questions that the receiver answers."""

from itertools import islice
from typing import Any

from c2c_lightning import embedded
from c2c_lightning.data.messages import Conversation, with_context
from c2c_lightning.data.readers.files import Table, read_rows
from c2c_lightning.data.sources.source import Row, TableSource, exchange, text
from c2c_lightning.errors import DataError


class PrivateDocuments(TableSource):
    """Rows with a document, a question and its answer in three columns.

    The receiver reads the question alone. Sharers read worked examples (documents, questions and their answers, as
    earlier turns), then the document and the question. All rows have the same worked examples, in the same order: the
    tokens that rows have in common are prefilled once.

    Args:
        path: see `TableSource`.
        document_column: the document, a text that is not empty.
        question_column: the question.
        answer_column: the answer, or a list of right answers, of which the first is the response to learn.
        shots: number of worked examples.
        examples: the file of the worked examples, with the same columns; default the first rows of `path`, which are
            then no rows of the source.
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
        super().__init__(path, **table)
        if shots < 0:
            raise DataError(f"`shots` of PrivateDocuments must be at least 0, but is {shots}.")
        self.document_column, self.question_column, self.answer_column = document_column, question_column, answer_column
        self.shots, self.examples = shots, examples
        self._turns: Conversation | None = None

    def load(self) -> Table:
        """The rows after the worked examples, if these are taken from the same file."""
        table = super().load()
        return table.skip(self.shots) if self.shots and self.examples is None else table

    def check(self) -> None:
        """Check that local files are there, and that the worked examples can be read."""
        super().check()
        self.worked_examples()

    def fingerprint(self) -> str:
        """A key of rows, reading and worked examples."""
        self.worked_examples()  # they are a part of the key as an attribute
        return super().fingerprint()

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """Question and answer; for sharers the worked examples, then document and question."""
        turn = self._turn(row)
        return exchange(text(row, self.question_column), self.answers(row)[0]), [*self.worked_examples(), turn[0]]

    def answers(self, row: Row) -> list[str]:
        """All right answers of a row."""
        value = row.get(self.answer_column)
        if not isinstance(value, list):
            value = [text(row, self.answer_column)]
        if not value or not all(isinstance(answer, str) and answer.strip() for answer in value):
            raise DataError(f"`{self.answer_column}` must be a text or a list of texts, none of them empty.")
        return value

    def worked_examples(self) -> Conversation:
        """The worked examples as turns of a conversation, read once.

        Raises:
            DataError: there are too few rows, or one does not fit.
        """
        if self._turns is None:
            self._turns = [message for row in self._example_rows() for message in row]
        return self._turns

    def _example_rows(self) -> list[Conversation]:
        if not self.shots:
            return []
        path = embedded.resolve(self.path if self.examples is None else self.examples)
        rows = list(islice(read_rows(path, split=self.split, streaming=True), self.shots))
        if len(rows) < self.shots:
            raise DataError(f"`{path}` has {len(rows)} rows, but {self.shots} worked examples (`shots`) are needed.")
        return [self._example(*row) for row in rows]

    def _example(self, origin: str, row: Row) -> Conversation:
        try:
            return self._turn(row)
        except DataError as problem:
            raise DataError(f"The worked example {origin} does not fit: {problem}") from problem

    def _turn(self, row: Row) -> Conversation:
        """Document and question as a message, and the answer as the next."""
        document = text(row, self.document_column)
        if not document.strip():
            raise DataError(f"`{self.document_column}` is empty: there is nothing that sharers could transfer.")
        return with_context(document, exchange(text(row, self.question_column), self.answers(row)[0]))

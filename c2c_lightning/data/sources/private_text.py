"""The base class of sources with a text that only sharers read, after worked examples."""

from abc import abstractmethod
from typing import Any, NamedTuple

from c2c_lightning import embedded
from c2c_lightning.data.messages import Conversation, with_context
from c2c_lightning.data.readers.files import Table, read_rows
from c2c_lightning.data.sources.source import Row, TableSource, UnusedRowError, exchange
from c2c_lightning.errors import DataError


class PrivateText(NamedTuple):
    """A row: the text that only sharers read, and the question and the answer that both models get."""

    document: str
    question: str
    answer: str


class PrivateTextSource(TableSource):
    """Rows of a text, a question about it and the answer.

    The receiver reads the question alone. Sharers read worked examples (texts, questions and their answers, as
    earlier turns), then the text and the question. All rows have the same worked examples, in the same order: the
    tokens that rows have in common are prefilled once.

    Args:
        path: see `TableSource`.
        shots: number of worked examples.
        examples: the file of the worked examples, with the same columns; default the first rows of `path`, which are
            then no rows of the source.
        **table: see `TableSource`.
    """

    def __init__(self, path: str, shots: int = 0, examples: str | None = None, **table: Any) -> None:
        super().__init__(path, **table)
        if shots < 0:
            raise DataError(f"`shots` of {type(self).__name__} must be at least 0, but is {shots}.")
        self.shots, self.examples = shots, examples
        self._turns: Conversation | None = None
        self._rows_read = 0

    @abstractmethod
    def private_text(self, row: Row) -> PrivateText:
        """The text, question and answer of a row.

        Raises:
            DataError: for a row that does not fit.
        """

    def load(self) -> Table:
        """The rows after the worked examples, if these are taken from the same file."""
        table = super().load()
        if not self.shots or self.examples is not None:
            return table
        self.worked_examples()
        return table.skip(self._rows_read)

    def check(self) -> None:
        """Check that local files are there, and that the worked examples can be read."""
        super().check()
        self.worked_examples()

    def fingerprint(self) -> str:
        """A key of rows, reading and worked examples."""
        self.worked_examples()  # they are a part of the key as an attribute
        return super().fingerprint()

    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """Question and answer; for sharers the worked examples, then text and question."""
        document, question, answer = self.private_text(row)
        conversation = exchange(question, answer)
        return conversation, [*self.worked_examples(), with_context(document, conversation)[0]]

    def worked_examples(self) -> Conversation:
        """The worked examples as turns of a conversation, read once.

        Raises:
            DataError: there are too few rows, or one does not fit.
        """
        if self._turns is None:
            self._turns = self._read_examples()
        return self._turns

    def _read_examples(self) -> Conversation:
        if not self.shots:
            return []
        path = embedded.resolve(self.path if self.examples is None else self.examples)
        turns: list[Conversation] = []
        for origin, row in read_rows(path, split=self.split, streaming=True):
            self._rows_read += 1
            turns += self._example(origin, row)
            if len(turns) == self.shots:
                return [message for turn in turns for message in turn]
        raise DataError(f"`{path}` has {len(turns)} rows, but {self.shots} worked examples (`shots`) are needed.")

    def _example(self, origin: str, row: Row) -> list[Conversation]:
        """The turn of a row, or nothing for a row that the source does not use."""
        try:
            document, question, answer = self.private_text(row)
        except UnusedRowError:
            return []
        except DataError as problem:
            raise DataError(f"The worked example {origin} does not fit: {problem}") from problem
        return [with_context(document, exchange(question, answer))]

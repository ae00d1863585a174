"""The interface of a source, and the base class of sources in tables."""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from c2c_lightning import embedded
from c2c_lightning.data.messages import Conversation
from c2c_lightning.data.readers.files import Table, data_fingerprint, load_rows
from c2c_lightning.errors import DataError

Row = Mapping[str, Any]


class UnusedRowError(DataError):
    """A row that is no fault of the data, but of no use to the source; it is dropped and counted by `reason`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Source(ABC):
    """Rows of data and their conversion to conversations.

    A new kind of data is a new subclass: `load` gives rows, `messages` reads one. The data module does the rest
    (checks, tokens, cache, batches).
    """

    @property
    def name(self) -> str:
        """Name in reports."""
        return type(self).__name__

    @abstractmethod
    def load(self) -> Table:
        """The rows, as a table or, for data that is too large or has no end on disk, as a stream."""

    @abstractmethod
    def messages(self, row: Row) -> tuple[Conversation, Conversation | None]:
        """The conversation of a row, which ends with the response, and the sharers' conversation (None: the same).

        Raises:
            DataError: for a row that does not fit; the row is dropped, counted and named.
            UnusedRowError: for a row that the source does not use; it is dropped and counted.
        """

    def chat_template_kwargs(self, row: Row) -> dict[str, Any]:
        """Arguments of the chat templates for a row (`tools`, `documents`, ...); none by default."""
        return {}

    def check(self) -> None:  # noqa: B027  (optional)
        """Check, without reading them, that the rows are there."""

    def fingerprint(self) -> str:
        """A key of rows and reading: the same key, the same conversations. Also of the code of this class."""
        parts = [class_code(type(self)), json.dumps(vars(self), sort_keys=True, default=str), self._data_fingerprint()]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _data_fingerprint(self) -> str:
        """A key of the rows alone."""
        return str(getattr(self.load(), "_fingerprint", ""))


class TableSource(Source):
    """Rows of files, of a saved data set, or of a data set on the hub.

    Args:
        path: a JSON (`.jsonl`, `.json`, also `.gz`, `.bz2`, `.zst`), `.parquet` or `.csv` file, a folder of such files
            (a checkout from the hub, say), a folder written by `Dataset.save_to_disk`, a pattern such as
            `data/*.jsonl`, the name of a data set on the hub, or `embedded:facts/NAME`.
        split: which split of a data set that has several; of local files, those whose names say so.
        subset: which configuration of a data set on the hub, or of a folder with a data card.
        revision: which commit, tag or branch of a data set on the hub.
        streaming: read rows as they are needed instead of preparing all of them first.
        max_row_bytes: larger rows of JSON files are dropped and counted.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        subset: str | None = None,
        revision: str | None = None,
        streaming: bool = False,
        max_row_bytes: int = 2**20,
    ) -> None:
        self.path = path
        self.split = split
        self.subset = subset
        self.revision = revision
        self.streaming = streaming
        self.max_row_bytes = max_row_bytes

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{type(self).__name__}({self.path})"

    def check(self) -> None:
        """Check that local files are there; a data set on the hub is looked for when it is loaded."""
        self._data_fingerprint_of_files()

    def load(self) -> Table:
        """The rows, as a table or as a stream."""
        return load_rows(
            embedded.resolve(self.path), self.split, self.subset, self.revision, self.streaming, self.max_row_bytes
        )

    def _data_fingerprint(self) -> str:
        return self._data_fingerprint_of_files() or super()._data_fingerprint()

    def _data_fingerprint_of_files(self) -> str | None:
        return data_fingerprint(embedded.resolve(self.path), self.split, self.subset)


def exchange(prompt: str, response: str) -> Conversation:
    """A conversation of one question and its answer."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def text(row: Row, column: str) -> str:
    """A column that must hold text."""
    if column not in row:
        raise DataError(f"The row has no `{column}`; it has {', '.join(f'`{name}`' for name in row) or 'nothing'}.")
    value = row[column]
    if not isinstance(value, str):
        raise DataError(f"`{column}` must be text, but is {type(value).__name__}.")
    return value


def class_code(cls: type) -> str:
    """The text of a class and its bases, so that a changed reading is a changed key."""
    texts = []
    for base in cls.__mro__[:-1]:
        try:
            texts.append(inspect.getsource(base))
        except (OSError, TypeError):  # no file behind it: typed into a console
            texts.append(base.__qualname__)
    return "\n".join(texts)

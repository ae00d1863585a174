"""Rows of one source, again and again, resumable at every row."""

from collections.abc import Iterator, Mapping
from typing import Any

from datasets import IterableDataset

from c2c_lightning.errors import DataError

Position = dict[str, Any]
"""The position of a reader, in plain data for checkpoints."""


class RowStream:
    """The rows of one source, again and again."""

    def __init__(
        self, name: str, table: IterableDataset, max_rows: int | None = None, position: Position | None = None
    ) -> None:
        self._name, self._table, self._max_rows = name, table, max_rows
        self._position: Position = {"round": 0, "row": 0, "inner": None, **(position or {})}
        self._rows = self._open()

    def position(self) -> Position:
        """The position of the next row."""
        inner = self._table.state_dict() if self._position["row"] else None
        return {**self._position, "inner": inner}

    @property
    def round(self) -> int:
        """How many times all rows have been read."""
        return int(self._position["round"])

    def take(self, count: int) -> list[tuple[int, Mapping[str, Any]]]:
        """The next rows, with their numbers."""
        rows: list[tuple[int, Mapping[str, Any]]] = []
        while len(rows) < count:
            row = self._next()
            if row is None:
                self._start_again()
                continue
            rows.append((self._position["row"], row))
            self._position["row"] += 1
        return rows

    def _next(self) -> Mapping[str, Any] | None:
        if self._max_rows is not None and self._position["row"] >= self._max_rows:
            return None
        try:
            batch = next(self._rows, None)
        except Exception as problem:  # of any reader below, in the middle of a file or of a download
            raise DataError(f"{self._name} cannot be read after row {self._position['row']}: {problem}") from problem
        return None if batch is None else {name: values[0] for name, values in batch.items()}

    def _start_again(self) -> None:
        if not self._position["row"]:
            raise DataError(f"{self._name} has no rows.")
        self._position = {"round": self.round + 1, "row": 0, "inner": None}
        self._rows = self._open()

    def _open(self) -> Iterator[Mapping[str, list[Any]]]:
        # A copy: the position of a table would be shared by all its readers.
        table = self._table.shard(1, 0)
        if self._position["inner"] is not None:
            table.load_state_dict(self._position["inner"])
        self._table = table
        # `iter(table)` would divide rows among the workers of a data loader.
        rows: Iterator[Mapping[str, list[Any]]] = table.iter(batch_size=1)
        return rows

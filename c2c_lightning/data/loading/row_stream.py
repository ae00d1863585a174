"""Rows of one source, again and again, for one reader of several, resumable at every row."""

from collections.abc import Iterator, Mapping
from typing import Any

from datasets import IterableDataset

from c2c_lightning.errors import DataError

Place = dict[str, Any]
"""Where a reader stands, in plain data for checkpoints."""

# Shares of files are even enough if every reader gets this many.
_EVEN = 8


class RowStream:
    """The rows of one source, again and again, for one reader of several: each row goes to one of them.

    Args:
        name: the source's name, for errors.
        table: all rows.
        reader: which reader this is.
        readers: how many there are.
        max_rows: read only that many rows of the table.
        place: where to go on, default at the beginning.
    """

    def __init__(
        self,
        name: str,
        table: IterableDataset,
        reader: int = 0,
        readers: int = 1,
        max_rows: int | None = None,
        place: Place | None = None,
    ) -> None:
        by_files = max_rows is None and (table.num_shards % readers == 0 or table.num_shards >= _EVEN * readers)
        self._table = table.shard(readers, reader) if by_files else table.shard(1, 0)
        self._every, self._mine = (1, 0) if by_files else (readers, reader)
        self._name, self._max_rows = name, max_rows
        self._place: Place = {"round": 0, "row": 0, "taken": 0, "inner": None, "skip": 0, **(place or {})}
        self._rows = self._open()
        self.take(self._place.pop("skip"))

    def place(self) -> Place:
        """Where the next row stands."""
        inner = self._table.state_dict() if self._place["row"] else None
        return {**self._place, "inner": inner}

    @property
    def round(self) -> int:
        """How often all rows have been read."""
        return int(self._place["round"])

    def take(self, count: int) -> list[tuple[int, Mapping[str, Any]]]:
        """The next rows, with their numbers."""
        rows: list[tuple[int, Mapping[str, Any]]] = []
        while len(rows) < count:
            number, row = self._place["row"], self._next()
            if row is None:
                self._begin_again()
                continue
            self._place["row"] += 1
            if number % self._every == self._mine:
                self._place["taken"] += 1
                rows.append((number, row))
        return rows

    def _next(self) -> Mapping[str, Any] | None:
        if self._max_rows is not None and self._place["row"] >= self._max_rows:
            return None
        try:
            batch = next(self._rows, None)
        except Exception as problem:  # of any reader below, in the middle of a file or of a download
            raise DataError(f"{self._name} cannot be read on: {problem}") from problem
        return None if batch is None else {name: values[0] for name, values in batch.items()}

    def _begin_again(self) -> None:
        if not self._place["taken"]:
            raise DataError(f"{self._name} has no rows, or fewer than there are processes and workers to read them.")
        self._place = {"round": self.round + 1, "row": 0, "taken": 0, "inner": None}
        self._rows = self._open()

    def _open(self) -> Iterator[Mapping[str, list[Any]]]:
        table = self._table.shard(1, 0)
        if self._place["inner"] is not None:
            table.load_state_dict(self._place["inner"])
        self._table = table
        # `iter(table)` would share rows out to the workers of a data loader once more, and so lose some.
        rows: Iterator[Mapping[str, list[Any]]] = table.iter(batch_size=1)
        return rows

"""Where the entries of rows are kept."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class KeptRow:
    """Entries of one row, on the CPU.

    Attributes:
        tokens: (tokens,), which of the row's tokens they belong to, ascending.
        entries: (tokens, values), see `FlatLayout`.
    """

    tokens: Int[Tensor, " tokens"]
    entries: Float[Tensor, "tokens values"]

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.tokens.nbytes + self.entries.nbytes

    def covers(self, wanted: Int[Tensor, " wanted"]) -> bool:
        """Whether it has the entries of all these tokens."""
        have = self.tokens.tolist()
        return have == (want := wanted.tolist()) or set(want) <= set(have)

    def tokens_before(self, end: int) -> "KeptRow":
        """The entries of the row's first `end` tokens."""
        count = int((self.tokens < end).sum())
        return self if count == len(self.tokens) else KeptRow(self.tokens[:count], self.entries[:count])


@runtime_checkable
class PrefillStore(Protocol):
    """Keeps rows of one model by the digests of their tokens."""

    @property
    def num_bytes(self) -> int:
        """Size of the rows that it holds."""
        ...

    def get(self, key: str) -> KeptRow | None:
        """A row; None if it is not kept."""
        ...

    def put(self, key: str, row: KeptRow) -> None:
        """Keep a row, unless the limit is reached."""
        ...

    def flush(self) -> None:
        """Make all rows permanent, for a store that is."""
        ...


class MemoryStore:
    """Rows in the memory of this process.

    Args:
        max_bytes: further rows are not kept beyond this size.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._rows: dict[str, KeptRow] = {}

    def get(self, key: str) -> KeptRow | None:
        """See `PrefillStore.get`."""
        return self._rows.get(key)

    def put(self, key: str, row: KeptRow) -> None:
        """See `PrefillStore.put`."""
        before = self._rows[key].num_bytes if key in self._rows else 0
        if self.num_bytes - before + row.num_bytes <= self.max_bytes:
            self._rows[key] = row
            self.num_bytes += row.num_bytes - before

    def flush(self) -> None:
        """Nothing: the rows end with the process."""

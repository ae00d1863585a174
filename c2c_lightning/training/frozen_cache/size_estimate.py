"""Size of the caches that a run keeps, estimated before they are computed, and its share of a limit."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.errors import FrozenCacheError

GB = 10**9


@dataclass(frozen=True)
class SizeEstimate:
    """Bytes that kept caches need.

    Attributes:
        names: of the models, sharers first.
        row_bytes: for each model the mean size of a row; None where rows cannot be sampled (streams).
        num_rows: number of rows that are used more than once; None if unknown.
        limit: bytes that may be kept.
    """

    names: Sequence[str]
    row_bytes: Sequence[float] | None
    num_rows: int | None
    limit: int

    def shares(self) -> list[int]:
        """Bytes that each model may keep, in the order of the names.

        Sharers come first: more computing is saved for each of their bytes.

        Raises:
            FrozenCacheError: not one row fits.
        """
        if self.row_bytes is None or self.num_rows is None:
            return [self.limit // len(self.names)] * len(self.names)
        largest = max(self.row_bytes[:1])
        if self.limit < largest:
            raise FrozenCacheError(
                f"`model.cache_frozen_limit_gb` is {self.limit / GB:g}, but the kept cache of one row needs "
                f"{largest / GB:.2g} GB. Raise the limit, or leave out `model.cache_frozen`."
            )
        shares, left = [], self.limit
        for row in self.row_bytes:
            # Rows are longer or shorter than those of the sample.
            shares.append(min(left, int(1.2 * row * self.num_rows) + 2**20))
            left -= shares[-1]
        return [*shares[:-1], shares[-1] + left]

    def describe(self) -> str:
        """The sizes in words."""
        limit = f"limit {self.limit / GB:g} GB"
        if self.row_bytes is None or self.num_rows is None:
            return f"the number of rows is not known before they are read ({limit})"
        sizes = [f"{row / 1e6:.3g} MB of {name}" for name, row in zip(self.names, self.row_bytes, strict=True)]
        total = sum(self.row_bytes) * self.num_rows
        text = f"{self.num_rows:,} rows of {' and '.join(sizes)}, {total / GB:.2g} GB in all ({limit})"
        if total <= self.limit:
            return text
        pairs = zip(self.names, self.row_bytes, self.shares(), strict=True)
        fits = [f"{min(1.0, share / (row * self.num_rows)):.0%} of {name}" for name, row, share in pairs if row]
        return f"{text}; {' and '.join(fits)} fit, the rest is computed in every step"

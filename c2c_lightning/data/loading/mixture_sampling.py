"""The rows of a mixture in an epoch: a pure function of (seed, epoch)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from c2c_lightning.data.row_lengths import Rows


@dataclass(frozen=True)
class MixedRows:
    """The rows of each epoch of a mixture.

    Each part is an endless sequence of shuffled passes over its rows; an epoch takes its share (shares sum to 1) after
    that of the last epoch, so that over the epochs every row is read equally often. An epoch lasts until the `first`
    part, or `all`, have been read once.
    """

    parts: Sequence[Rows]
    shares: Sequence[float]
    until: Literal["first", "all"]
    seed: int

    def __call__(self, epoch: int) -> Rows:
        """The rows of an epoch, part by part."""
        taken = []
        for number, (rows, count) in enumerate(zip(self.parts, self.counts(), strict=True)):
            places = np.arange(epoch * count, (epoch + 1) * count)
            taken.append(rows[self._endless_order(number, len(rows), places)])
        return np.concatenate(taken)

    def counts(self) -> list[int]:
        """Number of rows of each part in an epoch; equal in all epochs."""
        sizes = [len(rows) / share for rows, share in zip(self.parts, self.shares, strict=True)]
        total = min(sizes) if self.until == "first" else max(sizes)
        return [max(1, round(share * total)) for share in self.shares]

    def _endless_order(self, part: int, size: int, places: Rows) -> Rows:
        """The entries at some places of endless shuffled passes over `size` rows."""
        order = np.empty_like(places)
        # Only the passes that an epoch touches are drawn.
        for round_ in np.unique(places // size):
            here = places // size == round_
            order[here] = np.random.default_rng([self.seed, part, int(round_)]).permutation(size)[places[here] % size]
        return order

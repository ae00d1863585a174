"""The rows of optimizer steps: they depend on the global batch alone, not on the number of processes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from c2c_lightning.data.loading.length_buckets import cut_batches
from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows

# Rows are shuffled, then sorted by length within windows of so many batches: more pads less, but mixes less.
_WINDOW = 1024
# Without it, rows of rare lengths have the same companions in every epoch. On chats of long-tailed lengths, batches of
# 32 rows kept 54 % of their pairs from one epoch to the next; blurred by this much 28 %, for 1 % more padding.
_BLUR = 0.04
# With a token budget, a plan may need a few batches more than the first; it is drawn again until it does not.
_DRAWS = 10

Step = list[Rows]
"""The rows of one optimizer step: its batches under a token budget, else all rows in one array."""


class Processes(NamedTuple):
    """How the batches of an optimizer step are divided: `accumulate` batches in each of `world_size` processes."""

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1


class StepSize(NamedTuple):
    """The size of an optimizer step over all processes and accumulated batches.

    With a limit of rows alone, it is the number of rows: one process with 8 rows, two with 4, or one with 4 rows and
    two accumulated batches have equal steps. With a token budget, it is the number of batches and the limits of each.
    """

    rows: int | None
    num_batches: int | None = None
    batch_rows: int | None = None
    batch_tokens: int | None = None

    @classmethod
    def of(cls, limits: BatchLimits, num_batches: int) -> "StepSize":
        """The size of a step of so many batches."""
        if limits.max_tokens is None:
            assert limits.batch_size is not None
            return cls(limits.batch_size * num_batches)
        return cls(None, num_batches, limits.batch_size, limits.max_tokens)

    @property
    def piece(self) -> BatchLimits:
        """The limits of the pieces that rows are cut into: whole steps, or batches under a token budget."""
        return BatchLimits(self.rows or self.batch_rows, self.batch_tokens)

    def steps(self, pieces: Sequence[Rows]) -> list[Step]:
        """Pieces in order, put together to steps; the last one may be short."""
        count = self.num_batches or 1
        return [list(pieces[i : i + count]) for i in range(0, len(pieces), count)]


def plan_steps(
    rows: Rows, lengths: Lengths, size: StepSize, seed: Sequence[int], num_pieces: int | None = None
) -> list[Step]:
    """The optimizer steps of an epoch, in a shuffled order; each row once, rows of similar lengths together.

    Full steps come first, then a short one if rows are left over. `lengths` are those of *all* rows. Under a token
    budget, `num_pieces` is the number of batches of every epoch, None for as many as are needed.
    """
    for draw in range(_DRAWS):
        random = np.random.default_rng([*seed, draw])
        pieces = _cut(random.permutation(rows), lengths.blurred(random, _BLUR), size)
        if num_pieces is None or len(pieces) <= num_pieces:
            break
    if num_pieces is not None:
        pieces = split(_joined(pieces, num_pieces, lengths), num_pieces)
    steps = size.steps(pieces)
    # The short step stays last: Lightning counts accumulated batches from the first of an epoch.
    is_short = bool(steps) and _measure(steps[-1], size) < _measure(steps[0], size)
    full = len(steps) - is_short
    return [steps[i] for i in [*random.permutation(full), *range(full, len(steps))]]


def split(batches: Sequence[Rows], count: int) -> list[Rows]:
    """The same rows in `count` batches, or fewer if all have one row: the last ones of several rows are halved."""
    result: list[Rows] = []
    missing = count - len(batches)
    for batch in reversed(batches):
        is_split = missing > 0 and len(batch) > 1
        result += [batch[len(batch) // 2 :], batch[: len(batch) // 2]] if is_split else [batch]
        missing -= is_split
    result.reverse()
    return split(result, count) if missing > 0 and len(result) > len(batches) else result


def _cut(rows: Rows, lengths: Lengths, size: StepSize) -> list[Rows]:
    """Pieces of similar rows, window by window; where pieces are steps, the short one is the last."""
    window = _WINDOW * _rows_per_piece(rows, lengths, size)
    pieces: list[Rows] = []
    for start in range(0, len(rows), window):
        cut = cut_batches(rows[start : start + window], lengths, size.piece)
        pieces += cut if size.rows is None else sorted(cut, key=len, reverse=True)
    return pieces


def _rows_per_piece(rows: Rows, lengths: Lengths, size: StepSize) -> int:
    if size.piece.batch_size is not None:
        return size.piece.batch_size
    assert size.batch_tokens is not None
    mean = lengths.take(rows).real_tokens / max(1, len(rows))
    return max(1, int(size.batch_tokens / max(1.0, mean)))


def _measure(step: Step, size: StepSize) -> int:
    """Rows of a step, or its batches under a token budget."""
    return len(step) if size.rows is None else len(step[0])


def _joined(batches: list[Rows], count: int, lengths: Lengths) -> list[Rows]:
    """The same rows in no more than `count` batches: the smallest are put together.

    Only a mixture whose epochs differ by much needs this. The joined batches seldom break a limit: they were small
    because nothing of their length was left.
    """
    batches = list(batches)
    while len(batches) > count:
        sizes = [lengths.take(batch).padded_tokens for batch in batches]
        smallest, next_smallest = np.argsort(sizes)[:2]
        batches[smallest] = np.concatenate([batches[smallest], batches[next_smallest]])
        del batches[next_smallest]
    return batches

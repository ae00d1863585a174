"""Which rows make up which batch: the order is a pure function of (seed, epoch), and a position is all its state."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Sampler

from c2c_lightning.data.loading.length_buckets import cut_batches
from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows
from c2c_lightning.errors import DataError

EpochRows = Callable[[int], Rows]
"""The rows of an epoch, in any order; the same number in every epoch."""

# An epoch's plan may need a few batches more than the first epoch's; it is drawn again until it does not.
_SLACK = 0.01
_SLACK_IF_ROWS_CHANGE = 0.04
_DRAWS = 10
# Without it, rows of rare lengths have the same companions in every epoch. On chats of long-tailed lengths, batches of
# 32 rows kept 54 % of their pairs from one epoch to the next; blurred by this much 28 %, for 1 % more padding.
_BLUR = 0.04


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch has got.

    Attributes:
        epoch: counted from 0.
        runs: (processes, batches of each) one entry for each run that worked on this epoch.
    """

    epoch: int = 0
    runs: tuple[tuple[int, int], ...] = ()

    def after(self, world_size: int, batches: int) -> "EpochProgress":
        """The same epoch, `batches` further on each of `world_size` processes."""
        runs = list(self.runs)
        if runs and runs[-1][0] == world_size:
            batches += runs.pop()[1]
        return EpochProgress(self.epoch, (*runs, (world_size, batches))) if batches else self


@dataclass
class BatchSampler(Sampler[list[int]]):
    """Batches of similar lengths for one process of several.

    Rows are shuffled, taken in windows, cut into batches there, and the batches are shuffled. Batches that belong to
    one step of all processes have similar lengths, so that none waits for another. Every row of the epoch is in one
    batch of one process, and every process gets the same number of batches in every epoch: where that needs more
    batches, some at the end are halved.

    Args:
        lengths: of all rows.
        limits: how large a batch may be.
        seed: of the order.
        rank: which process this is.
        world_size: number of processes.
        shuffle: False keeps batches in order of length.
        epoch_rows: the rows of an epoch; default all rows in each.
        window: rows that are shuffled before they are sorted, in batches; more pads less, but mixes less.
    """

    lengths: Lengths
    limits: BatchLimits
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    epoch_rows: EpochRows | None = None
    window: int = 1024
    _progress: EpochProgress = field(default=EpochProgress(), init=False)

    def __post_init__(self) -> None:
        """Fix the number of batches by the plan of epoch 0."""
        if self.limits.batch_size is None and self.limits.max_tokens is None:
            raise DataError("Set `batch_size`, `max_tokens_per_batch` or both: nothing limits the size of a batch.")
        first = len(self._draw(0, 0, self.world_size))
        slack = 0 if self.limits.max_tokens is None or not self.shuffle else int(first * self._slack) + 1
        total = min(first + slack, len(self._rows(0)))
        self._count = -(-total // self.world_size)

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        """What is left of the epoch; afterwards the sampler stands at the start of it again."""
        progress, self._progress = self._progress, EpochProgress(self._progress.epoch)
        for batch in self.remaining(progress)[self.rank :: self.world_size]:
            yield batch.tolist()

    def start_at(self, progress: EpochProgress) -> None:
        """Let the next iteration go on after what is done.

        Args:
            progress: how far the epoch has got.
        """
        self._progress = progress

    def remaining(self, progress: EpochProgress) -> list[Rows]:
        """What is left of an epoch, for all processes: each takes every `world_size`-th batch."""
        worlds = [*(world for world, _ in progress.runs), self.world_size]
        batches = self._plan(progress.epoch, worlds[0])
        for (world, done), following in zip(progress.runs, worlds[1:], strict=True):
            batches = batches[world * done :]
            if following != world and batches:
                batches = _halved(batches, -(-len(batches) // following) * following)
        return batches

    def _plan(self, epoch: int, world_size: int) -> list[Rows]:
        """All batches of an epoch in order; the length is fixed and a multiple of `world_size`."""
        if world_size != self.world_size:
            other = BatchSampler(
                self.lengths, self.limits, self.seed, 0, world_size, self.shuffle, self.epoch_rows, self.window
            )
            return other._plan(epoch, world_size)
        target = self._count * world_size
        for draw in range(_DRAWS):
            batches = self._draw(epoch, draw, world_size)
            if len(batches) <= target:
                return _halved(batches, target)
        return _joined(batches, target, self.lengths)

    def _draw(self, epoch: int, draw: int, world_size: int) -> list[Rows]:
        rows = self._rows(epoch)
        if not self.shuffle:
            return cut_batches(rows, self.lengths, self.limits)
        random = np.random.default_rng([self.seed, epoch, draw])
        rows, lengths = random.permutation(rows), self.lengths.blurred(random, _BLUR)
        size = self.window * self._rows_per_batch(rows)
        batches: list[Rows] = []
        for start in range(0, len(rows), size):
            batches += cut_batches(rows[start : start + size], lengths, self.limits)
        steps = [batches[i : i + world_size] for i in range(0, len(batches), world_size)]
        # A step that is short of batches goes last, where the halved ones fill it.
        whole = len(batches) // world_size
        return [batch for i in [*random.permutation(whole), *range(whole, len(steps))] for batch in steps[i]]

    @property
    def _slack(self) -> float:
        return _SLACK if self.epoch_rows is None else _SLACK_IF_ROWS_CHANGE

    def _rows(self, epoch: int) -> Rows:
        return np.arange(len(self.lengths)) if self.epoch_rows is None else self.epoch_rows(epoch)

    def _rows_per_batch(self, rows: Rows) -> int:
        if self.limits.batch_size is not None:
            return self.limits.batch_size
        assert self.limits.max_tokens is not None
        mean = self.lengths.take(rows).real_tokens / max(1, len(rows))
        return max(1, int(self.limits.max_tokens / max(1.0, mean)))


def _joined(batches: list[Rows], count: int, lengths: Lengths) -> list[Rows]:
    """The same rows in `count` batches: small ones are put together, in places of their own.

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


def _halved(batches: list[Rows], count: int) -> list[Rows]:
    """The same rows in `count` batches: the last ones that hold several rows are halved until there are enough."""
    result: list[Rows] = []
    missing = count - len(batches)
    for batch in reversed(batches):
        halves = [batch[len(batch) // 2 :], batch[: len(batch) // 2]] if missing and len(batch) > 1 else [batch]
        missing -= len(halves) - 1
        result += halves
    result.reverse()
    if missing and len(result) > len(batches):
        return _halved(result, count)
    # More processes than rows: some rows are read twice, or a process would wait for the others for ever.
    return result + [result[i % len(result)] for i in range(missing)]

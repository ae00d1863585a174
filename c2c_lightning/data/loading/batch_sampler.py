"""The batches of one process: optimizer steps are planned for all processes together, and dealt out to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Sampler

from c2c_lightning.data.loading.length_buckets import cut_batches
from c2c_lightning.data.loading.step_plan import Step, StepSize, plan_steps, split
from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows
from c2c_lightning.errors import DataError

EpochRows = Callable[[int], Rows]
"""The rows of an epoch, in any order; the same number in every epoch."""

# Spare batches of an epoch under a token budget, as a fraction of those of the first.
_SPARE = 0.01
_SPARE_IF_ROWS_CHANGE = 0.04


@dataclass(frozen=True)
class EpochProgress:
    """The position in an epoch, counted from 0.

    `runs` has one entry for each size of steps that this epoch was trained with so far: (step size, number of steps).
    """

    epoch: int = 0
    runs: tuple[tuple[StepSize, int], ...] = ()

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the epoch that are done."""
        return sum(steps for _, steps in self.runs)

    def after(self, size: StepSize, steps: int) -> "EpochProgress":
        """The position so many steps further."""
        runs = list(self.runs)
        if runs and runs[-1][0] == size:
            steps += runs.pop()[1]
        return EpochProgress(self.epoch, (*runs, (size, steps))) if steps else self


@dataclass
class BatchSampler(Sampler[list[int]]):
    """Batches of similar lengths for one process of several.

    The rows of each optimizer step are a function of (seed, epoch) and of the step's size over all processes and
    accumulated batches. Every row of the epoch is in one batch of one process, and all processes have the same number
    of batches: where the last step has fewer rows than there are processes, some get a row without supervision, which
    is given as `-1 - row`. Without `shuffle`, batches are in order of length. By default every epoch has all rows.
    """

    lengths: Lengths
    limits: BatchLimits
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    shuffle: bool = True
    epoch_rows: EpochRows | None = None
    _progress: EpochProgress = field(default=EpochProgress(), init=False)
    _num_pieces: dict[StepSize, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Determine the number of batches of an epoch."""
        if self.limits.batch_size is None and self.limits.max_tokens is None:
            raise DataError("Set `batch_size`, `max_tokens_per_batch` or both: nothing limits the size of a batch.")
        self.size = StepSize.of(self.limits, self.world_size * self.accumulate)
        # A plan takes half a minute for 500,000 rows; steps of so many rows can be counted without one.
        steps = self.remaining(EpochProgress()) if self.size.rows is None else self._unordered(self.size.rows)
        self._count = self.count_batches(steps)

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        """The remaining batches of the epoch; afterwards the sampler is at the start of the epoch again."""
        progress, self._progress = self._progress, EpochProgress(self._progress.epoch)
        for batch in self.batches(progress):
            yield batch.tolist()

    def start_at(self, progress: EpochProgress) -> None:
        """Set the position of the next iteration."""
        self._progress = progress

    def batches(self, progress: EpochProgress = EpochProgress()) -> Iterator[Rows]:
        """The remaining batches of this process in an epoch."""
        return (batch for step in self.remaining(progress) for batch in self.deal(step))

    def remaining(self, progress: EpochProgress) -> list[Step]:
        """The remaining optimizer steps of an epoch, for all processes."""
        rows, steps, previous = self._rows(progress.epoch), list[Step](), None
        # The epoch may have been trained with several sizes of steps: after each, the rows that are left are planned
        # again.
        for number, (size, done) in enumerate([*progress.runs, (self.size, 0)]):
            if size != previous:
                steps = self._plan(rows, size, progress.epoch, number)
            steps, previous = steps[done:], size
            rows = np.concatenate([*(rows for step in steps for rows in step), np.empty(0, np.int64)])
        return steps

    def deal(self, step: Step) -> list[Rows]:
        """The batches of this process in a step."""
        batches = step if self.limits.max_tokens is not None else cut_batches(step[0], self.lengths, self.limits)
        batches = split(batches, self._multiple(len(batches)))
        # A process with fewer batches would leave the others waiting in the reduction of gradients.
        missing = self._multiple(len(batches)) - len(batches)
        return [*batches, *[-1 - batches[0][:1]] * missing][self.rank :: self.world_size]

    def count_batches(self, steps: list[Step]) -> int:
        """Batches of each process in some steps."""
        rows = self.limits.batch_size
        pieces = [
            len(step) if self.limits.max_tokens is not None else -(-len(step[0]) // (rows or 1)) for step in steps
        ]
        return sum(self._multiple(count) // self.world_size for count in pieces)

    def _plan(self, rows: Rows, size: StepSize, epoch: int, number: int) -> list[Step]:
        if not self.shuffle:
            return size.steps(cut_batches(rows, self.lengths, size.piece))
        num_pieces = None if number or size.rows is not None else self._pieces_of_epoch(size)
        return plan_steps(rows, self.lengths, size, [self.seed, epoch, number], num_pieces)

    def _pieces_of_epoch(self, size: StepSize) -> int:
        """Batches of every epoch under a token budget: those of epoch 0 and some to spare, in whole steps."""
        # The trainer reads the length of a loader once, so every epoch has the same number of batches.
        if size not in self._num_pieces:
            rows, count = self._rows(0), size.num_batches or 1
            first = sum(map(len, plan_steps(rows, self.lengths, size, [self.seed, 0, 0])))
            spare = _SPARE if self.epoch_rows is None else _SPARE_IF_ROWS_CHANGE
            self._num_pieces[size] = -(-min(first + int(first * spare) + 1, len(rows)) // count) * count
        return self._num_pieces[size]

    def _unordered(self, step_rows: int) -> list[Step]:
        rows = self._rows(0)
        return [[rows[start : start + step_rows]] for start in range(0, len(rows), step_rows)]

    def _rows(self, epoch: int) -> Rows:
        return np.arange(len(self.lengths)) if self.epoch_rows is None else self.epoch_rows(epoch)

    def _multiple(self, count: int) -> int:
        return -(-count // self.world_size) * self.world_size

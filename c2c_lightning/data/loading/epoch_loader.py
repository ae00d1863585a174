"""Batches of an encoded table, epoch after epoch, resumed exactly at the optimizer step of a checkpoint."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.encode import EncodedExample, Encoder
from c2c_lightning.data.loading.batch_sampler import BatchSampler, EpochProgress
from c2c_lightning.data.loading.resumable_loader import ResumableLoader
from c2c_lightning.data.loading.step_plan import StepSize
from c2c_lightning.data.preprocessing.data_report import SourceReport
from c2c_lightning.data.preprocessing.tokenized_dataset import TokenTable

logger = logging.getLogger(__name__)

Collate = Callable[[Sequence[EncodedExample]], TrainingBatch]


def collate_for(encoder: Encoder) -> Collate:
    """The function that pads examples for the models of an encoder."""
    return partial(collate_examples, receiver_pad_id=encoder.receiver_pad_id, sharer_pad_ids=encoder.sharer_pad_ids)


class EpochLoader(ResumableLoader):
    """The batches of one process, epoch after epoch."""

    def __init__(
        self,
        table: TokenTable,
        batches: BatchSampler,
        collate: Collate,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batches = batches
        self._length = len(batches)
        # The position at the start of the next iteration and of the current one, and the trainer's batch count there.
        self._next = EpochProgress(), 0
        self._current = self._next
        self._is_waiting = True
        self._loader: DataLoader[TrainingBatch] = DataLoader(
            cast(Dataset[TrainingBatch], table),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A separate generator: iterating must not advance the random numbers of the training.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches of the epoch, including those before a restart."""
        return self._length

    def __iter__(self) -> Iterator[TrainingBatch]:
        """The remaining batches of the epoch.

        A generator: Lightning makes iterators that it never uses, and those must not change the position.
        """
        self._current, self._is_waiting, self._is_resumed = self._next, False, False
        progress, _ = self._current
        self._next = EpochProgress(progress.epoch), 0
        self.batches.start_at(progress)
        yield from self._loader

    def epoch(self, number: int, skipped: int = 0) -> Iterator[TrainingBatch]:
        """The batches of one epoch after the first `skipped`; the position of the trainer's iteration is kept."""
        steps, rest = divmod(skipped, self.batches.accumulate)
        self.batches.start_at(EpochProgress(number).after(self.batches.size, steps))
        yield from islice(self._loader, rest, None)

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; no effect for the epoch that is running or was resumed."""
        current, _ = self._current
        epoch = self._data_epoch(epoch, current.epoch)
        if epoch != current.epoch:
            self._next = self._current = EpochProgress(epoch), 0
            self._is_waiting = True
        has_new_length = not self._current[0].runs and self._length != len(self.batches)
        if has_new_length:
            self._length = len(self.batches)
        self.on_epoch(has_new_length)

    def state(self, done: int, limit: int | float) -> dict[str, Any]:
        """The position in the epoch, in whole optimizer steps."""
        progress, before = self._current
        # The trainer's count is still the last epoch's when a new epoch is set but not begun.
        done = before if self._is_waiting else done
        steps = (done - before) // self.batches.accumulate
        # The last step of an epoch may have fewer batches than the others.
        if done == self._length:
            steps = len(self.batches.remaining(progress))
        progress = progress.after(self.batches.size, steps)
        runs = [[list(size), count] for size, count in progress.runs]
        return {"epoch": progress.epoch, "steps": runs, "batches": done, "is_over": done >= limit}

    def resume(self, states: Sequence[dict[str, Any]]) -> int:
        """Continue after the position of a checkpoint, in the next epoch if nothing is left of that one."""
        state = states[0]
        done, size = int(state["batches"]), self.batches.size
        # Version 0.1 counted batches in place of steps.
        steps = state.get("steps", [[size, done // self.batches.accumulate]])
        progress = EpochProgress(
            state["epoch"], tuple((StepSize(*size), count) for size, count in steps) if done else ()
        )
        if any(size != self.batches.size for size, _ in progress.runs):
            logger.warning(
                "Optimizer steps have another size than those of the checkpoint (rows over all processes and "
                "accumulated batches). Each row still comes once in this epoch, but epochs have another number of "
                "steps, which moves schedules that count them."
            )
        left = self.batches.count_batches(self.batches.remaining(progress)) if progress.runs else 0
        # `limit_train_batches` may end an epoch before its rows do.
        is_over = bool(done) and (state["is_over"] or (bool(progress.runs) and not left))
        if not is_over:
            done = progress.num_steps * self.batches.accumulate
        self._length = done + left or len(self.batches)
        self._is_resumed = True
        self._next = self._current = (EpochProgress(progress.epoch + 1), 0) if is_over else (progress, done)
        return done

    def reports(self) -> list[SourceReport]:
        """Nothing: a table's rows are counted before training."""
        return []

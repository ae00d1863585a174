"""Batches of an encoded table, epoch after epoch, that go on exactly where a checkpoint stopped."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.encode import EncodedExample, Encoder
from c2c_lightning.data.loading.batch_sampler import BatchSampler, EpochProgress
from c2c_lightning.data.preprocessing.data_report import SourceReport
from c2c_lightning.data.preprocessing.tokenized_dataset import TokenTable

logger = logging.getLogger(__name__)

Collate = Callable[[Sequence[EncodedExample]], TrainingBatch]


def collate_for(encoder: Encoder) -> Collate:
    """The function that pads examples for the models of an encoder."""
    return partial(collate_examples, receiver_pad_id=encoder.receiver_pad_id, sharer_pad_ids=encoder.sharer_pad_ids)


class EpochLoader:
    """The batches of one process, epoch after epoch.

    Not a torch `DataLoader`, so that Lightning leaves its sampler alone: rows are already shared out to processes.

    Args:
        table: all examples.
        batches: which rows make up which batch.
        collate: pads them.
        num_workers: processes that read and pad.
        pin_memory: whether batches go to page-locked memory, for faster copies to a GPU.
        on_new_length: is told when epochs have another length from now on.
    """

    def __init__(
        self,
        table: TokenTable,
        batches: BatchSampler,
        collate: Collate,
        num_workers: int = 0,
        pin_memory: bool = False,
        on_new_length: Callable[[], None] = lambda: None,
    ) -> None:
        self.batches = batches
        self.on_new_length = on_new_length
        self._length = len(batches)
        # Where the next iteration starts and the current one did: what was done before, and in how many batches.
        self._next = EpochProgress(), 0
        self._current = self._next
        self._is_waiting = True
        self._loader: DataLoader[TrainingBatch] = DataLoader(
            cast(Dataset[TrainingBatch], table),
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            # A generator of its own: iterating must not move the random numbers of the training.
            generator=torch.Generator(),
        )

    # Lightning looks here before it looks at `sampler`.
    batch_sampler = None

    @property
    def sampler(self) -> "EpochLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    def __len__(self) -> int:
        """Batches of the epoch, those included that were done before a restart."""
        return self._length

    def __iter__(self) -> Iterator[TrainingBatch]:
        """What is left of the epoch.

        A generator: Lightning makes iterators that it never reads, and those must not move the place.
        """
        self._current, self._is_waiting = self._next, False
        progress, _ = self._current
        self._next = EpochProgress(progress.epoch), 0
        self.batches.start_at(progress)
        yield from self._loader

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; nothing changes for the epoch that is running or was resumed.

        Args:
            epoch: counted from 0.
        """
        current, _ = self._current
        if epoch != current.epoch:
            self._next = self._current = EpochProgress(epoch), 0
            self._is_waiting = True
        if not self._current[0].runs and self._length != len(self.batches):
            self._length = len(self.batches)
            self.on_new_length()

    def resume(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on after what is done, in the next epoch if nothing is left of this one.

        Args:
            states: what `state` gave, one for each process of that run; all are the same.
        """
        state = states[0]
        progress = EpochProgress(state["epoch"], tuple((world, done) for world, done in state["runs"]))
        done = int(state["batches"])
        left = len(self.batches.remaining(progress)) // self.batches.world_size if progress.runs else 0
        if progress.runs[-1:] and progress.runs[-1][0] != self.batches.world_size:
            logger.warning(
                "The checkpoint was written by %d processes, this run has %d. Each row still comes once in this epoch, "
                "but in other batches; epochs have another number of steps, which moves schedules that count them; and "
                "random numbers differ.",
                progress.runs[-1][0],
                self.batches.world_size,
            )
        # The trainer has counted `done` batches in this epoch, which is over when it has counted those left too.
        self._length = done + left or len(self.batches)
        is_over = state["is_over"] or not left
        self._next = self._current = (EpochProgress(progress.epoch + 1), 0) if done and is_over else (progress, done)

    def state(self, done: int, limit: int | float) -> dict[str, Any]:
        """How far the epoch has got.

        Args:
            done: batches of the epoch that were trained on, as the trainer counts them.
            limit: how many batches the trainer takes from an epoch.

        Returns:
            What `resume` needs, in plain data.
        """
        progress, before = self._current
        # The trainer's count is still the last epoch's when a new epoch is set but not begun.
        done = before if self._is_waiting else done
        progress = progress.after(self.batches.world_size, done - before)
        runs = [list(run) for run in progress.runs]
        return {"epoch": progress.epoch, "runs": runs, "batches": done, "is_over": done >= limit}

    def reports(self) -> list[SourceReport]:
        """Nothing: a table's rows are counted before training."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps the state. With this method Lightning knows that resuming is safe."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing, see `state_dict`."""

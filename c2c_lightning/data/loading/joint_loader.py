"""Batches of several directions, without end, resumed exactly at the batch of a checkpoint."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.joint_batch import JointBatch
from c2c_lightning.data.loading.epoch_loader import EpochLoader
from c2c_lightning.data.loading.resumable_loader import ResumableLoader
from c2c_lightning.data.preprocessing.data_report import SourceReport

logger = logging.getLogger(__name__)


class JointLoader(ResumableLoader):
    """One batch of every direction at a time.

    Directions differ in their number of rows, so each has its own epochs, one after the other. The position is the
    number of batches alone.
    """

    def __init__(self, loaders: Mapping[str, EpochLoader], accumulate: int) -> None:
        """Join loaders.

        Args:
            loaders: the loader of each direction, by its name.
            accumulate: batches of an optimizer step in each process.
        """
        super().__init__()
        self._loaders, self._accumulate = dict(loaders), accumulate
        self._epoch, self._before_epoch, self._seen = 0, 0, 0

    def __iter__(self) -> Iterator[JointBatch]:
        """The batches after the last one."""
        self._is_resumed = False
        batches = {name: endless(loader, self._seen) for name, loader in self._loaders.items()}
        while True:
            drawn = {name: next(of_direction) for name, of_direction in batches.items()}
            self._seen += 1
            yield JointBatch(drawn)

    def set_epoch(self, epoch: int) -> None:
        """Count batches from 0 in an epoch, if the trainer ends epochs by `limit_train_batches`."""
        epoch = self._data_epoch(epoch, self._epoch)
        if epoch != self._epoch:
            self._epoch, self._before_epoch = epoch, self._seen
        self.on_epoch(False)

    def state(self, done: int, limit: int | float) -> dict[str, Any]:
        """The position in whole optimizer steps; the trainer may have fetched a batch ahead."""
        return {
            "epoch": self._epoch,
            "batches": done,
            "before": self._before_epoch,
            "sizes": self._sizes(),
            "is_over": done >= limit,
        }

    def resume(self, states: Sequence[dict[str, Any]]) -> int:
        """Continue after the position of a checkpoint."""
        state = states[0]
        if state["sizes"] != self._sizes():
            logger.warning(
                "Optimizer steps have another size than those of the checkpoint (rows over all processes and "
                "accumulated batches). Training continues at the same number of batches: some rows of this epoch will "
                "come twice and others not at all."
            )
        done = int(state["batches"])
        if not state["is_over"]:
            # Gradients of a step that was not finished are lost, so it is done again.
            done = done // self._accumulate * self._accumulate
        self._seen = int(state["before"]) + done
        self._epoch, self._is_resumed = state["epoch"] + int(state["is_over"]), True
        self._before_epoch = self._seen if state["is_over"] else int(state["before"])
        return done

    def reports(self) -> list[SourceReport]:
        """Nothing: rows of tables are counted before training."""
        return []

    def _sizes(self) -> list[list[Any]]:
        """The size of an optimizer step in every direction."""
        return [[name, list(loader.batches.size)] for name, loader in self._loaders.items()]


def endless(loader: EpochLoader, start: int) -> Iterator[TrainingBatch]:
    """The batches of a loader, epoch after epoch, from the batch of a number."""
    epoch, skipped = divmod(start, len(loader.batches))
    while True:
        yield from loader.epoch(epoch, skipped)
        epoch, skipped = epoch + 1, 0

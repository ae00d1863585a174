"""The interface of loaders whose position can be saved and resumed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.joint_batch import JointBatch
from c2c_lightning.data.preprocessing.data_report import SourceReport


class ResumableLoader(ABC):
    """The batches of one process.

    Not a torch `DataLoader`, so that Lightning leaves its sampler alone: batches are divided among processes already.
    """

    # Lightning looks for `set_epoch` here before it looks at `sampler`.
    batch_sampler = None

    def __init__(self) -> None:
        self.on_epoch: Callable[[bool], None] = lambda has_new_length: None
        self._is_resumed, self._offset = False, 0

    @property
    def sampler(self) -> Self:
        """The object on which Lightning calls `set_epoch`."""
        return self

    @abstractmethod
    def __iter__(self) -> Iterator[TrainingBatch] | Iterator[JointBatch]:
        """The remaining batches."""

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch of the trainer, counted from 0."""

    @abstractmethod
    def state(self, done: int, limit: int | float) -> dict[str, Any]:
        """The position in whole optimizer steps, as plain data for `resume`.

        Args:
            done: batches of the epoch that were trained on, by the trainer's count.
            limit: batches that the trainer takes from an epoch.
        """

    @abstractmethod
    def resume(self, states: Sequence[dict[str, Any]]) -> int:
        """Continue after the position of a checkpoint.

        Args:
            states: the result of `state` in each process; all are equal.

        Returns:
            Batches of the epoch that the trainer has to count as done: processes and accumulation may have changed, and
            the gradients of a step that was not finished are lost, so that it is done again.
        """

    @abstractmethod
    def reports(self) -> list[SourceReport]:
        """Counts of rows so far, where they are not known before training."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps the state. This method tells Lightning that the loader can be resumed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (nothing to load)
        """Nothing, see `state_dict`."""

    def _data_epoch(self, epoch: int, current: int) -> int:
        """The epoch of the data at an epoch of the trainer."""
        # The trainer counts one too many after a run that ended in the middle of an epoch. A trainer that resumes at
        # the end of an epoch sets that epoch once more, then the next one, before it draws a batch.
        if self._is_resumed:
            self._offset = current - epoch
        return epoch + self._offset

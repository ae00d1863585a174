"""The bounded queue of answers that wait, and the choice of the next batch."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from c2c_lightning.errors import C2CError
from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.served_models import ServedModel


class QueueFullError(C2CError):
    """No place in the queue: the request may be sent again later."""


class ShuttingDownError(C2CError):
    """The server stops, and takes no more requests."""


@dataclass(frozen=True)
class QueueLimits:
    """Sizes of the queue and of batches.

    Attributes:
        max_waiting: answers that may wait.
        max_batch: answers in one batch.
        max_batch_tokens: tokens of one batch, prompts and answers, padding included.
        batch_window: seconds that the first answer of a batch waits for others.
    """

    max_waiting: int = 256
    max_batch: int = 32
    max_batch_tokens: int = 65_536
    batch_window: float = 0.005


@dataclass(eq=False)
class WaitingRow:
    """An answer in the queue, with the model that gives it."""

    served: ServedModel
    row: AnswerRow

    @property
    def group(self) -> object:
        """Answers of one group share a batch."""
        return self.served.name, self.row.prompt.group

    @property
    def num_tokens(self) -> int:
        """Most tokens that prompt and answer have."""
        return int(self.row.prompt.num_tokens) + self.row.settings.max_tokens


class WaitingRows:
    """First in, first out; a batch is the oldest answer and those of its group. Several threads may use it."""

    def __init__(self, limits: QueueLimits) -> None:
        """Begin empty."""
        self.limits = limits
        self._rows: list[WaitingRow] = []
        self._changed, self._collecting = threading.Condition(), threading.Lock()
        self.is_closed = False

    def __len__(self) -> int:
        """Number of waiting answers."""
        return len(self._rows)

    def put(self, rows: Sequence[WaitingRow]) -> None:
        """Queue the answers of one request, all or none.

        Raises:
            QueueFullError: they do not fit.
            ShuttingDownError: the queue is closed.
        """
        with self._changed:
            if self.is_closed:
                raise ShuttingDownError("The server is shutting down and takes no more requests.")
            if len(self._rows) + len(rows) > self.limits.max_waiting:
                raise QueueFullError(
                    f"{len(self._rows)} answers wait already, and at most {self.limits.max_waiting} may. Try later."
                )
            self._rows += rows
            self._changed.notify_all()

    def close(self) -> list[WaitingRow]:
        """Take no more; the answers that still wait."""
        with self._changed:
            self.is_closed, rest, self._rows = True, self._rows, []
            self._changed.notify_all()
            return rest

    def remove(self, is_over: Callable[[WaitingRow], bool]) -> list[WaitingRow]:
        """Take out the answers for which `is_over` holds."""
        with self._changed:
            over = [waiting for waiting in self._rows if is_over(waiting)]
            self._rows = [waiting for waiting in self._rows if waiting not in over]
            return over

    def take(self) -> list[WaitingRow]:
        """The next batch, as soon as there is one; empty once the queue is closed."""
        with self._collecting, self._changed:  # one thread at a time waits for the window of a batch
            while not self.is_closed:
                if not self._rows:
                    self._changed.wait()
                elif (left := self._window_left()) > 0:
                    self._changed.wait(left)
                else:
                    return self._next_batch()
        return []

    def _window_left(self) -> float:
        oldest = self._rows[0]
        if len(self._rows) >= self.limits.max_batch:
            return 0.0
        return oldest.row.arrival + self.limits.batch_window - time.monotonic()

    def _next_batch(self) -> list[WaitingRow]:
        group, longest = self._rows[0].group, 0
        batch: list[WaitingRow] = []
        for waiting in self._rows:
            if waiting.group != group:
                continue
            longest = max(longest, waiting.num_tokens)
            if batch and longest * (len(batch) + 1) > self.limits.max_batch_tokens:
                break
            batch.append(waiting)
            if len(batch) == self.limits.max_batch:
                break
        self._rows = [waiting for waiting in self._rows if waiting not in batch]
        return batch

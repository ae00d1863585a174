"""The bounded queue of answers that wait, and the choice of the next batch."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
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
        busy_window: the same while a batch of its group runs: the next one collects what arrives meanwhile, but a long
            answer must not hold up short ones.
    """

    max_waiting: int = 256
    max_batch: int = 32
    max_batch_tokens: int = 65_536
    batch_window: float = 0.005
    busy_window: float = 0.1


@dataclass(eq=False)
class WaitingRow:
    """An answer in the queue, with the model that gives it."""

    served: ServedModel
    row: AnswerRow

    @property
    def group(self) -> Hashable:
        """Answers of one group share a batch."""
        return self.served.name, self.row.prompt.group

    @property
    def num_tokens(self) -> int:
        """Most tokens that prompt and answer have."""
        return int(self.row.prompt.num_tokens) + self.row.settings.max_tokens


class WaitingRows:
    """A batch is the oldest answer and those of its group that wait too. Several threads may use it."""

    def __init__(self, limits: QueueLimits) -> None:
        """Begin empty."""
        self.limits = limits
        self._rows: list[WaitingRow] = []
        self._running: Counter[Hashable] = Counter()
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
        """The next batch, as soon as there is one; empty once the queue is closed. Call `done` after it."""
        with self._collecting, self._changed:  # one thread at a time waits for the window of a batch
            while not self.is_closed:
                group, seconds = self._next_group()
                if group is not None and seconds <= 0:
                    return self._take_group(group)
                self._changed.wait(None if group is None else seconds)
        return []

    def done(self, batch: Sequence[WaitingRow]) -> None:
        """A batch has been answered."""
        with self._changed:
            self._running[batch[0].group] -= 1
            self._running += Counter()  # drops the groups that no longer run
            self._changed.notify_all()

    def _next_group(self) -> tuple[Hashable | None, float]:
        """The group whose window ends first, and the seconds until then; None where nothing waits."""
        now, sizes = time.monotonic(), Counter(waiting.group for waiting in self._rows)
        ends: dict[Hashable, float] = {}
        for waiting in self._rows:
            window = self.limits.busy_window if waiting.group in self._running else self.limits.batch_window
            is_full = sizes[waiting.group] >= self.limits.max_batch
            ends.setdefault(waiting.group, 0.0 if is_full else waiting.row.arrival + window - now)
        first = min(ends, key=ends.__getitem__, default=None)
        return first, ends.get(first, 0.0)

    def _take_group(self, group: Hashable) -> list[WaitingRow]:
        """The oldest answers of a group that fit into a batch."""
        batch: list[WaitingRow] = []
        longest = 0
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
        self._running[group] += 1
        return batch

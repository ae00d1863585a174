"""Threads that take batches from the queue and answer them; their batches take turns token by token."""

import logging
import threading
from collections.abc import Callable, Sequence

import torch

from c2c_lightning.errors import C2CError
from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.served_models import ServedModel
from c2c_lightning.serving.waiting_rows import QueueLimits, ShuttingDownError, WaitingRow, WaitingRows

logger = logging.getLogger(__name__)


class AnswerEngine:
    """Answers requests in batches.

    Several batches run at once, so that a short answer does not wait for the end of a long one and several models
    stream side by side. A forward pass holds the lock of its model, hence batches of one model alternate.

    Attributes:
        waiting: the queue.
        num_running: answers that are being generated.
    """

    def __init__(
        self, limits: QueueLimits, num_threads: int = 4, on_batch: Callable[[int], None] = lambda size: None
    ) -> None:
        """Prepare the threads.

        Args:
            limits: sizes of queue and batches.
            num_threads: batches that run at once.
            on_batch: is given the size of each batch.
        """
        self.waiting, self.on_batch = WaitingRows(limits), on_batch
        self._running, self._lock = list[WaitingRow](), threading.Lock()
        # Daemons: a pass that does not end must not keep the process alive.
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name=f"answers-{n}") for n in range(num_threads)
        ]

    @property
    def num_running(self) -> int:
        """Number of answers that are being generated."""
        return len(self._running)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, served: ServedModel, rows: Sequence[AnswerRow]) -> None:
        """Queue the answers of a request; QueueFullError where they do not fit."""
        self.waiting.put([WaitingRow(served, row) for row in rows])

    def cancel(self, rows: Sequence[AnswerRow]) -> None:
        """The client has left: free the places of its answers in the queue, and end those that run."""
        for row in rows:
            row.control.cancel()
        for waiting in self.waiting.remove(lambda waiting: waiting.row.control.ended_by is not None):
            waiting.row.end_early()

    def shut_down(self, grace: float) -> None:
        """Take no more requests, refuse those that wait, and end those that run after some seconds; returns at once."""
        for waiting in self.waiting.close():
            waiting.row.fail(ShuttingDownError("The server is shutting down. Send the request again."))
        with self._lock:
            for running in self._running:
                running.row.control.shorten(grace)

    def join(self, timeout: float) -> bool:
        """Wait for the threads after `shut_down`; whether all have ended."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while batch := self.waiting.take():
            with self._lock:
                self._running += batch
            self._answer(batch)
            self.waiting.done(batch)
            with self._lock:
                self._running = [running for running in self._running if running not in batch]
            del batch  # a thread that waits for the next batch must not keep the caches of this one

    def _answer(self, batch: Sequence[WaitingRow]) -> None:
        """Answer a batch; where it fails as a whole, each answer that has not begun alone."""
        served, rows = batch[0].served, self._still_wanted(batch)
        if not rows:
            return
        self.on_batch(len(rows))
        try:
            served.answer(rows)
        except Exception as error:
            logger.log(_level(error), "a batch of %d answers of %s failed: %s", len(rows), served.name, error)
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            for row in rows:
                self._answer_alone(served, row, error, is_alone=len(rows) == 1)

    def _answer_alone(self, served: ServedModel, row: AnswerRow, error: Exception, is_alone: bool) -> None:
        if row.is_done:
            return
        if is_alone or row.ids:
            row.fail(error)
            return
        try:
            served.answer([row])
        except Exception as problem:
            logger.log(_level(problem), "an answer of %s failed: %s", served.name, problem)
            row.fail(problem)

    def _still_wanted(self, batch: Sequence[WaitingRow]) -> list[AnswerRow]:
        """The answers whose clients still wait and whose time is not over."""
        for waiting in batch:
            if waiting.row.control.must_end:
                waiting.row.end_early()
        return [waiting.row for waiting in batch if not waiting.row.is_done]


def _level(error: Exception) -> int:
    """A user's mistake is no error of the server."""
    return logging.INFO if isinstance(error, C2CError) else logging.ERROR

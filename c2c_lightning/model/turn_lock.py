"""A reentrant lock whose waiting threads take turns in the order of their arrival."""

import threading
from collections import deque
from typing import Self


class TurnLock:
    """As `threading.RLock`, but fair: a released lock goes to the thread that has waited longest.

    A long generation gives way to others between two tokens with `release_all` and `restore`; with an unfair lock it
    would take the lock again before a waiting thread wakes up.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def __enter__(self) -> Self:
        """Take the lock."""
        self.restore(1)
        return self

    def __exit__(self, *exception: object) -> None:
        """Release it once."""
        with self._mutex:
            self._depth -= 1
            if not self._depth:
                self._hand_over()

    @property
    def has_waiting(self) -> bool:
        """Whether another thread waits for the lock."""
        return bool(self._waiting)

    def release_all(self) -> int:
        """Release a lock that this thread holds; the number of times it was held, for `restore`."""
        with self._mutex:
            if self._owner != threading.get_ident():
                return 0
            depth, self._depth = self._depth, 0
            self._hand_over()
            return depth

    def restore(self, depth: int) -> None:
        """Take the lock `depth` times, after all threads that wait for it already."""
        if not depth:
            return
        me = threading.get_ident()
        with self._mutex:
            if self._owner in (None, me):
                self._owner, self._depth = me, self._depth + depth
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((me, turn))
        self._wait(me, turn)
        self._depth = depth

    def _wait(self, me: int, turn: threading.Lock) -> None:
        try:
            turn.acquire()
        except BaseException:  # an interrupted thread must not keep its place, or a lock that it was just given
            with self._mutex:
                if (me, turn) in self._waiting:
                    self._waiting.remove((me, turn))
                else:
                    self._hand_over()
            raise

    def _hand_over(self) -> None:
        """Give the lock to the next thread; the mutex is held."""
        if not self._waiting:
            self._owner = None
            return
        self._owner, turn = self._waiting.popleft()
        turn.release()

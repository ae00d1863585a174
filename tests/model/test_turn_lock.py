"""A fair reentrant lock."""

import os
import signal
import threading
import time

import pytest

from c2c_lightning.model.turn_lock import TurnLock


def test_waiting_threads_take_turns_in_order() -> None:
    lock, order = TurnLock(), list[int]()

    def work(number: int) -> None:
        for _ in range(3):
            with lock:
                order.append(number)
                time.sleep(0.002)

    with lock:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)  # each waits before the next comes
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2] * 3


def test_it_is_reentrant_and_given_back_once_in_full() -> None:
    lock, seen = TurnLock(), list[str]()
    with lock, lock:
        other = threading.Thread(target=lambda: seen.append(_enter(lock)))
        other.start()
        while not lock.has_waiting:
            time.sleep(0.001)
        assert not seen
        depth = lock.release_all()
        assert depth == 2
        lock.restore(depth)  # behind the thread that has waited longer
        assert seen == ["entered"]
    with lock:
        pass
    other.join()


def test_a_thread_that_does_not_hold_it_releases_nothing() -> None:
    lock, found = TurnLock(), list[int]()
    with lock:
        thread = threading.Thread(target=lambda: found.append(lock.release_all()))
        thread.start()
        thread.join()
        assert found == [0]
        lock.restore(0)
        with lock:  # still held here
            pass


def test_an_interrupted_thread_loses_its_place() -> None:
    lock, entered = TurnLock(), threading.Event()
    holder = threading.Thread(target=lambda: _hold(lock, entered))
    former = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        holder.start()
        entered.wait()
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(KeyboardInterrupt), lock:
            pass
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert not lock.has_waiting
    holder.join()
    with lock:
        pass


def _enter(lock: TurnLock) -> str:
    with lock:
        return "entered"


def _hold(lock: TurnLock, entered: threading.Event) -> None:
    with lock:
        entered.set()
        time.sleep(0.3)

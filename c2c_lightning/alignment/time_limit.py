"""A time limit for foreign code that runs in this thread, such as a chat template whose loops do not end."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Expired(BaseException):
    """Raised inside the limited code; no `except Exception` of that code catches it."""


@contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Interrupt the body after some seconds of wall-clock time, and raise the error in its place.

    Works in every thread, unlike signals. Python code is interrupted between two instructions; a single call into C is
    not.
    """
    thread, lock, state = threading.get_ident(), threading.Lock(), {"running": True, "expired": False}

    def interrupt() -> None:
        with lock:
            if state["running"]:
                state["expired"] = True
                _raise_in(thread, ctypes.py_object(_Expired))

    timer = threading.Timer(seconds, interrupt)
    # A daemon, so that a body that cannot be interrupted does not keep the process alive.
    timer.daemon = True
    timer.start()
    try:
        yield
    except _Expired:
        raise error from None
    finally:
        with lock:
            # Under the lock: an exception that is scheduled after the end of the body would be raised in the caller.
            state["running"] = False
        timer.cancel()
        if state["expired"]:
            _raise_in(thread, None)  # the body may have ended before the exception reached it


def _raise_in(thread: int, exception: "ctypes.py_object[type[BaseException]] | None") -> None:
    """Schedule an exception in a thread; None withdraws one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)

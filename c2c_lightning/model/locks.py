"""Locks of several language models at once."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from c2c_lightning.model.frozen_lm import FrozenLM


@contextmanager
def exclusive(models: Sequence[FrozenLM]) -> Iterator[None]:
    """Holds the locks of several models, in one order everywhere, so that threads cannot block each other for ever."""
    with ExitStack() as stack:
        for lm in sorted(models, key=id):
            stack.enter_context(lm.lock)
        yield


def let_others_run(models: Sequence[FrozenLM]) -> None:
    """Between two passes of a thread that holds the locks of models: threads that wait for one of them run first."""
    if not any(lm.lock.has_waiting for lm in models):
        return
    ordered = sorted(set(models), key=id)
    # All of them: a thread that keeps one lock while it waits for another could block the others for ever.
    depths = [lm.lock.release_all() for lm in ordered]
    for lm, depth in zip(ordered, depths, strict=True):
        lm.lock.restore(depth)

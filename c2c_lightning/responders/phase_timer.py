"""Where the time of an answer goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up the seconds of named phases; a phase inside another is taken off the outer one.

    On a GPU each border waits for the device, else a phase would only be the time of its launches. That costs a
    little, so the clock does it only when asked to measure.

    Attributes:
        seconds: of each phase so far.
    """

    def __init__(self, device: torch.device | None = None, is_exact: bool = False) -> None:
        """Start at zero.

        Args:
            device: whose work is timed.
            is_exact: whether to wait for the device at the borders of phases.
        """
        self.seconds: dict[str, float] = defaultdict(float)
        self._waits = is_exact and device is not None and device.type == "cuda"
        self._inside: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside.

        Args:
            name: `prefill_sharer`, `prefill_receiver`, `fuse`, `decode` or `message`.
        """
        self._inside.append(0.0)
        start = self._now()
        try:
            yield
        finally:
            elapsed = self._now() - start
            self.seconds[name] += elapsed - self._inside.pop()
            if self._inside:
                self._inside[-1] += elapsed

    def _now(self) -> float:
        if self._waits:
            torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    def share(self, batch: int) -> dict[str, float]:
        """Seconds of each phase for one of `batch` answers."""
        return {name: seconds / batch for name, seconds in self.seconds.items()}

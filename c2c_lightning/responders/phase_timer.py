"""Wall time of the phases of an answer."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


class PhaseTimer:
    """Sums the seconds of named phases; the time of a nested phase is subtracted from the outer one.

    GPU work is asynchronous, so exact times need a synchronisation at each boundary. It costs a little, hence only on
    request.

    Attributes:
        seconds: of each phase so far.
    """

    def __init__(self, device: torch.device | None = None, is_exact: bool = False) -> None:
        """Start at zero.

        Args:
            device: device of the timed work.
            is_exact: whether to synchronise the device at the boundaries of phases.
        """
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronises = is_exact and device is not None and device.type == "cuda"
        self._nested: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body of the context.

        Args:
            name: `prefill_sharer`, `prefill_receiver`, `fuse`, `decode` or `message`.
        """
        self._nested.append(0.0)
        start = self._now()
        try:
            yield
        finally:
            elapsed = self._now() - start
            self.seconds[name] += elapsed - self._nested.pop()
            if self._nested:
                self._nested[-1] += elapsed

    @contextmanager
    def module_phase(self, module: nn.Module, name: str) -> Iterator[None]:
        """Time each forward pass of a module as a phase, by hooks, inside the context.

        Args:
            module: the module.
            name: as for `phase`.
        """
        running: list[AbstractContextManager[None]] = []

        def before(*_: object) -> None:
            running.append(self.phase(name))
            running[-1].__enter__()

        def after(*_: object) -> None:
            running.pop().__exit__(None, None, None)

        handles = [
            module.register_forward_pre_hook(before, prepend=True),
            module.register_forward_hook(after, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _now(self) -> float:
        if self._synchronises:
            torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    def share(self, batch: int) -> dict[str, float]:
        """Seconds of each phase for one of `batch` answers."""
        return {name: seconds / batch for name, seconds in self.seconds.items()}

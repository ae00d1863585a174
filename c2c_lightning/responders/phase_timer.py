"""Wall time of the phases of an answer."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


class PhaseTimer:
    """Sums the seconds of named phases; the time of a nested phase is subtracted from the outer one.

    GPU work is asynchronous, so exact times need a synchronisation at each boundary. It costs a little, hence only on
    request.

    Args:
        device: device of the timed work.
        is_exact: whether to synchronise the device at the boundaries of phases.
    """

    def __init__(self, device: torch.device, is_exact: bool = False) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronises = is_exact and device.type == "cuda"
        self._nested: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body: `prefill_sharer`, `prefill_receiver`, `fuse` or `decode`."""
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
        """Time each forward pass of a module as a phase, by hooks, inside the context."""
        # `always_call`: after an error the phase is closed, too.
        running = ExitStack()
        handles = [
            module.register_forward_pre_hook(lambda *_: running.enter_context(self.phase(name)), prepend=True),
            module.register_forward_hook(lambda *_: running.close(), always_call=True),
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

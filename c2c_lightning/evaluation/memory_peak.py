"""Peak memory of a batch and of a run."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
#: Resets the peak memory of a process on Linux (man 5 proc, `clear_refs`).
_RESET_PEAK = "5"


@dataclass
class Peak:
    """Bytes; None during the measurement, and where it is impossible."""

    value: int | None = None


@contextmanager
def peak_memory_of_batch() -> Iterator[Peak]:
    """Measures the peak memory of the context's body.

    On a GPU, memory of tensors; on a CPU, resident memory of the process, models and libraries included (Linux only).
    """
    peak, is_measured = Peak(), False
    # Other systems and some containers cannot reset it.
    with suppress(OSError):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
        is_measured = True
    yield peak
    if is_measured:
        peak.value = peak_memory()


def peak_memory() -> int:
    """Peak bytes since the start, or since the last `peak_memory_of_batch`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = _PROCESS / "status"
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""The most memory that was in use: of a batch, of a run."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
#: Makes Linux forget the most memory that a process had (man 5 proc, `clear_refs`).
_FORGET_PEAK = "5"


@dataclass
class Peak:
    """A measurement.

    Attributes:
        value: bytes; None until it is over, and where it cannot be measured.
    """

    value: int | None = None


@contextmanager
def peak_memory_of_batch() -> Iterator[Peak]:
    """Measures the most memory in use inside.

    On a GPU it is what tensors take there, on a CPU what the whole process takes (models and libraries included;
    Linux only).
    """
    peak = Peak()
    is_measured = _forget_peak()
    yield peak
    if is_measured:
        peak.value = peak_memory()


def _forget_peak() -> bool:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        (_PROCESS / "clear_refs").write_text(_FORGET_PEAK)
    except OSError:
        return False
    return True


def peak_memory() -> int:
    """Most bytes in use since the start, or since `peak_memory_of_batch` last began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = _PROCESS / "status"
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Peak memory of a piece of work, above the memory in use before it."""

import ctypes
import gc
import logging
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Peak memory of `work` above the memory in use before it, in bytes.

    On a GPU that is PyTorch's allocated memory, on a CPU the resident set of this process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    _return_free_pages()
    before = _reset_high_water()
    work()
    return _high_water() - before


def _return_free_pages() -> None:
    """Return freed memory to the system; else it would count as in use, and its reuse would not be seen."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim is not None:
            trim(0)


def _reset_high_water() -> int:
    """Reset the high-water mark of the resident set; returns the present resident set, in bytes."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        logger.warning("the high-water mark of memory cannot be reset here: a peak below an earlier one is not seen")
        return _high_water()
    return _field("VmRSS")


def _high_water() -> int:
    """Highest resident set since the reset, in bytes."""
    if _STATUS.exists():
        return _field("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _field(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024

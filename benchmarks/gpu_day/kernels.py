"""Kernels that a work launches, by PyTorch's profiler."""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Result
from benchmarks.paper_size import CountKernels

FIRST = 10
ANNOTATIONS = ("Optimizer.", "ProfilerStep")


def launches(day: Day, work: Callable[[], object]) -> Result:
    """Launches, busy time of the device, and its ten longest kernels; on a CPU the operations that are no views."""
    work()
    if not day.is_cuda:
        with CountKernels() as counter:
            work()
        return {"operations": counter.kernels}
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    # Annotations are listed like kernels.
    events: list[Any] = [
        e for e in profiler.events() or [] if e.device_type == DeviceType.CUDA and not e.name.startswith(ANNOTATIONS)
    ]
    times: dict[str, list[float]] = {}
    for event in events:
        times.setdefault(event.name, []).append(event.time_range.elapsed_us())
    longest = sorted(times, key=lambda name: -sum(times[name]))[:FIRST]
    return {
        "launches": len(events),
        "device_ms": sum(map(sum, times.values())) / 1e3,
        "kernels": [{"name": n[:120], "calls": len(times[n]), "ms": sum(times[n]) / 1e3} for n in longest],
    }

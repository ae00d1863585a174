"""Versions, the card, missing packages, and the rates that everything else is compared with."""

import importlib.util
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Journal, Result

ROOT = Path(__file__).parents[2]

NEEDED = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "yaml",
    "jaxtyping",
    "torchmetrics",
    "rich",
)
OPTIONAL = {
    "datasets": "data modules and `lightning fit`: the quickstart reads its rows by itself instead",
    "jsonargparse": "the command line: the parts call the Python interface",
    "flash_attn": "the check of flash_attention_2",
    "triton": "torch.compile with inductor",
    "matplotlib": "pictures",
}


def run(day: Day, journal: Journal) -> None:
    """Read versions, then measure the device."""
    journal.check("versions", _versions)
    journal.check("needed packages", _needed)
    journal.check("optional packages", lambda: {name: _state(name, use) for name, use in OPTIONAL.items()})
    journal.check("device", lambda: _device(day))
    journal.check("rates", lambda: _rates(day))


def _versions() -> Result:
    found = {name: _version(name) for name in ("torch", "lightning", "pytorch-lightning", "transformers", "triton")}
    machine = {"python": sys.version.split()[0], "platform": platform.platform(), "cpus": os.cpu_count()}
    return {"commit": _commit(), **machine, **found}


def _commit() -> str:
    """The commit of the checkout, with a `+` if files differ from it; `unknown` without git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _needed() -> Result:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    assert not missing, f"Install the missing packages: {', '.join(missing)}."
    return {}


def _state(name: str, use: str) -> str:
    return "present" if importlib.util.find_spec(name) else f"missing; needed for {use}"


def _device(day: Day) -> Result:
    import torch

    if not day.is_cuda:
        return {"name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "gib": properties.total_memory / 2**30,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def _rates(day: Day) -> Result:
    """Matrix products in three types, a copy within the memory, and the time of a small kernel's launch."""
    import torch

    from c2c_lightning.profiling.machine import MatrixProduct

    size, device = (8192 if day.is_cuda else 256), torch.device(day.device)
    rates: dict[str, Any] = {}
    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, "highest"),
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
    ):
        torch.set_float32_matmul_precision(tf32)
        product = MatrixProduct(size, dtype, device)
        seconds = _seconds(day, lambda product=product: product(5)) / 5
        rates[f"{name}_tflop_per_second"] = product.flop / seconds / 1e12
    torch.set_float32_matmul_precision("highest")
    source = torch.empty(2**30 if day.is_cuda else 2**20, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    rates["copy_gb_per_second"] = 2 * source.nbytes / _seconds(day, lambda: target.copy_(source)) / 1e9
    small = torch.zeros(1, device=device)
    rates["launch_us"] = _seconds(day, lambda: [small.add_(1) for _ in range(1000)]) * 1e3
    return rates


def _seconds(day: Day, work: Any) -> float:
    import torch

    times = []
    for _ in range(4):
        if day.is_cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        if day.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])

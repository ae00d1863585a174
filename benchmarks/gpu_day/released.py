"""The training step against the plain released one on the same device and batches."""

from typing import Any

import torch

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.inference import float32_products
from benchmarks.gpu_day.journal import Journal, Result
from benchmarks.gpu_day.kernels import launches
from benchmarks.gpu_day.pairs import build, free, paper_pair, recipe_workload
from benchmarks.released_step import ReleasedTrainer
from c2c_lightning.profiling.benchmark import smallest_vocabulary
from c2c_lightning.profiling.peak_memory import peak_bytes
from c2c_lightning.profiling.timing import Times
from c2c_lightning.profiling.train_step import Trainer

SIDES: dict[str, tuple[type[Trainer], torch.dtype]] = {
    "ours, fuser float32": (Trainer, torch.float32),
    "ours, fuser bfloat16": (Trainer, torch.bfloat16),
    "released, bfloat16": (ReleasedTrainer, torch.bfloat16),
}


def run(day: Day, journal: Journal) -> None:
    """Measure each side alone, so that none takes another's memory."""
    times = {}
    for name in SIDES:
        result = journal.check(name, lambda name=name: _side(day, *SIDES[name]))
        times[name] = result.get("seconds")
        free(day)
    journal.check("ratios", lambda: _ratios(times))


def _side(day: Day, make: type[Trainer], dtype: torch.dtype) -> Result:
    """Optimizer steps on each of the recipe's batches; language models in bfloat16, TF32 allowed."""
    model = build(day, paper_pair(day))
    model.fuser.to(dtype)
    batches = recipe_workload(day.is_tiny).batches(smallest_vocabulary(model))
    if make is Trainer:  # the released side builds its padded rows on the CPU
        batches = [batch.to(day.device) for batch in batches]
    with float32_products("tf32"):
        trainer = make(model)
        peak = peak_bytes(lambda: trainer.steps(batches), torch.device(day.device))
        timed = Times()
        for _ in range(1 if day.is_tiny else 2):
            timed.measure(lambda: trainer.steps(batches))
        profile = launches(day, lambda: trainer.step(batches[0]))
    rows = sum(map(len, batches))
    seconds = min(timed.wall)
    figures = {"seconds": seconds, "samples_per_second": rows / seconds, "peak_mib_above_loaded": peak / 2**20}
    return {**figures, **profile}


def _ratios(times: dict[str, Any]) -> Result:
    """Times of the released step over each of ours."""
    assert all(times.values()), "a side failed"
    return {name: times["released, bfloat16"] / seconds for name, seconds in times.items() if "ours" in name}

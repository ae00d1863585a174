"""The training step at the paper's sizes: samples a second, share of the device's rate, memory, batch sizes."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.inference import float32_products
from benchmarks.gpu_day.journal import Journal, Result
from benchmarks.gpu_day.kernels import launches
from benchmarks.gpu_day.pairs import build, free, paper_pair, recipe_workload
from benchmarks.gpu_day.prediction import accelerator, step_seconds
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.kind import _REGISTERED
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.benchmark import smallest_vocabulary
from c2c_lightning.profiling.flops import samples_of, training_step
from c2c_lightning.profiling.peak_memory import peak_bytes
from c2c_lightning.profiling.shapes import PairShape
from c2c_lightning.profiling.workload import equal_batch, real_tokens
from c2c_lightning.training.train_model import TrainModel


class Steps:
    """Optimizer steps over accumulated batches, as the recipe takes them.

    Attributes:
        model: the fused model; its fuser is trained.
    """

    def __init__(self, model: TrainModel) -> None:
        self.model = model.train()
        self.parameters = list(model.fuser.parameters())
        self.optimizer = AdamW(self.parameters, lr=1e-4, weight_decay=0.01, fused=True)

    def step(self, batches: Sequence[TrainingBatch]) -> None:
        """One optimizer step."""
        for batch in batches:
            (self.model.batch_loss(batch) / batch.response_mask.sum() / len(batches)).backward()
        clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def run(day: Day, journal: Journal) -> None:
    """Measure everything."""
    for name, settings in WAYS.items():
        journal.check(f"recipe, {name}", partial(recipe, day, **settings))
        free(day)
    journal.check("batches of 512 tokens, growing", lambda: sweep(day))
    free(day)
    for kind in sorted(_REGISTERED):
        journal.check(f"recipe, fuser kind {kind}, tf32", partial(recipe, day, precision="tf32", short=True, kind=kind))
        free(day)


WAYS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "tf32": {"precision": "tf32", "profiled": True},
    "bfloat16 fuser": {"precision": "tf32", "fuser_dtype": torch.bfloat16},
    "tf32, activation checkpointing": {"precision": "tf32", "checkpointing": True},
}


def trained(day: Day, fuser_dtype: torch.dtype | None = None, checkpointing: bool = False, **fuser: Any) -> TrainModel:
    """The pair, ready to be trained."""
    built = build(day, paper_pair(day, **fuser))
    model = TrainModel(built.receiver, built.sharers, built.fuser)
    model.activation_checkpointing = checkpointing
    if fuser_dtype is not None:
        model.fuser.to(fuser_dtype)
    return model


def recipe_batches(day: Day, model: C2CModel, count: int | None = None) -> list[TrainingBatch]:
    """The batches of one optimizer step of the recipe, on the device."""
    made = recipe_workload(day.is_tiny).batches(smallest_vocabulary(model))
    return [batch.to(day.device) for batch in made[:count]]


def recipe(day: Day, precision: str, profiled: bool = False, short: bool = False, **settings: Any) -> Result:
    """Optimizer steps of 32 rows in batches of 4: the paper's recipe on one GPU.

    Args:
        day: the run.
        precision: of float32 products.
        profiled: whether to profile one batch too.
        short: two batches only.
        settings: of `trained`.
    """
    model = trained(day, **settings)
    batches = recipe_batches(day, model, 2 if short else None)
    loaded = _allocated(day)
    with float32_products(precision):
        steps = Steps(model)
        peak = peak_bytes(lambda: steps.step(batches), torch.device(day.device))
        seconds = _seconds(day, lambda: steps.step(batches), 1 if day.is_tiny else 3)
        profile = launches(day, lambda: steps.step(batches[:1])) if profiled else {}
    return {**_figures(day, model, batches, seconds, precision), **_memory(model, steps, loaded, peak), **profile}


def _figures(day: Day, model: C2CModel, batches: Sequence[TrainingBatch], seconds: float, precision: str) -> Result:
    samples = [s for batch in batches for s in samples_of(batch.to("cpu"))]
    needed, tokens = training_step(PairShape.of(model), samples), real_tokens(batches)
    each = [step_seconds(day, model, samples_of(b.to("cpu")), precision == "tf32")["total"] for b in batches]
    return {
        "samples": len(samples),
        "tokens_per_sample": tokens / len(samples),
        "padding": 1 - tokens / sum(b.prompt.receiver.input_ids.numel() + b.response_ids.numel() for b in batches),
        "step_ms": seconds * 1e3,
        "samples_per_second": len(samples) / seconds,
        "tokens_per_second": tokens / seconds,
        "needed_tflop": needed.total / 1e12,
        "needed_tflop_per_second": needed.total / seconds / 1e12,
        "mfu": needed.total / seconds / accelerator(day).flop_rate,
        "predicted_step_ms": sum(each) * 1e3,
    }


def _memory(model: TrainModel, steps: Steps, loaded: int, peak: int) -> Result:
    """Memory by part, in MiB."""
    models = sum(p.nbytes for lm in (model.receiver, *model.sharers) for p in lm.model.parameters())
    fuser = sum(p.nbytes for p in steps.parameters)
    state = sum(v.nbytes for s in steps.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor))
    parts = {"models": models, "fuser": fuser, "gradients": fuser, "optimizer": state, "loaded": loaded}
    parts |= {"activations": peak - fuser - state, "peak_above_loaded": peak}
    return {"mib": {name: size / 2**20 for name, size in parts.items()}}


def _allocated(day: Day) -> int:
    return torch.cuda.memory_allocated() if day.is_cuda else 0


def _seconds(day: Day, work: Any, rounds: int) -> float:
    """Seconds of the fastest of some rounds, after one that is not measured."""
    times = []
    for _ in range(rounds + 1):
        if day.is_cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        if day.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def sweep(day: Day) -> Result:
    """Samples a second for growing batches of 384 + 128 tokens, until memory or 30 seconds are used up."""
    model, results = trained(day), dict[str, Any]()
    prompt, response, largest = (12, 4, 2) if day.is_tiny else (384, 128, 1024)
    end, rows = time.monotonic() + 30, 1
    with float32_products("tf32"):
        steps = Steps(model)
        while rows <= largest and time.monotonic() < end:
            batch = equal_batch(rows, prompt, response, smallest_vocabulary(model)).to(day.device)
            try:
                results[str(rows)] = _one_size(day, steps, batch)
            except torch.cuda.OutOfMemoryError:
                results[str(rows)] = "out of memory"
                break
            rows *= 2
    return results


def _one_size(day: Day, steps: Steps, batch: TrainingBatch) -> Result:
    peak = peak_bytes(lambda: steps.step([batch]), torch.device(day.device))
    seconds = _seconds(day, lambda: steps.step([batch]), 1 if len(batch) > 16 else 3)
    return {
        "step_ms": seconds * 1e3,
        "samples_per_second": len(batch) / seconds,
        "peak_mib_above_loaded": peak / 2**20,
        "predicted_ms": step_seconds(day, steps.model, samples_of(batch.to("cpu")), True)["total"] * 1e3,
    }

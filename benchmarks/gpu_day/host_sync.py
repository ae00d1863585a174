"""Waits of the host for the device within a training step."""

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Refuted, Result
from benchmarks.gpu_day.pairs import small_batches, small_model
from benchmarks.host_reads import DEVICE, host_reads_refused
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import equal_batch

EXCEPTIONS: tuple[str, ...] = ()
"""Places that may wait, as `file.py:line` or `file.py`; none is known to be needed."""


def no_host_sync(day: Day, mode: str) -> Result:
    """A training step, optimizer included, waits for no value of the device, with padding and without."""
    if not day.is_cuda:
        return _runs_on_meta(mode)
    model = small_model(day.device, fusion_mode=mode, gate_noise="gumbel", dropout=0.1)
    batches, trainer = [batch.to(day.device) for batch in _batches()], Trainer(model)
    trainer.steps(batches)  # makes the optimizer's state, and everything that is computed once
    waits = Counter[str]()
    with listed_waits(waits):
        trainer.steps(batches)
    unexpected = {place: n for place, n in waits.items() if not place.startswith(EXCEPTIONS or ("-",))}
    result: Result = {"waits": dict(waits), "exceptions": list(EXCEPTIONS)}
    if unexpected:
        raise Refuted(f"the step waits at {', '.join(unexpected)}", result)
    if not waits:
        with waits_are_errors():
            trainer.steps(batches)
    return result


def _batches() -> list[TrainingBatch]:
    """A padded batch and one of equal lengths, on the host."""
    return [small_batches("cpu")[0], equal_batch(3, 17, 5, 512)]


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """While it lasts, waiting for the device raises RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def listed_waits(waits: Counter[str]) -> Iterator[None]:
    """While it lasts, count the waits by the line of Python that caused each."""

    def note(message: Warning | str, *args: Any) -> None:
        if "called a synchronizing" in str(message):
            waits[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _place() -> str:
    """The line that waits, and the innermost line of this repository that it was called from."""
    frames = [f for f in traceback.extract_stack() if f.name not in ("note", "_place", "_showwarnmsg")]
    ours = [f for f in frames[:-1] if "c2c_lightning" in Path(f.filename).parts]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in [frames[-1], *ours[-1:]])


def _runs_on_meta(mode: str) -> Result:
    """Tensors without values: reading one is an error, as a wait would be on a GPU."""
    model = small_model("cpu", fusion_mode=mode, gate_noise="gumbel", dropout=0.1)
    _ = model.receiver.head  # found once, by a comparison that reads values
    trainer = Trainer(model.to(DEVICE))
    trainer.optimizer = AdamW(trainer.parameters, foreach=True)  # there is no fused optimizer for `meta`
    with host_reads_refused():
        trainer.steps([batch.to(DEVICE) for batch in _batches()])
    return {"stand-in": "meta device"}

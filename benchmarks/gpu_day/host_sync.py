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
from c2c_lightning.profiling.train_step import Trainer

EXCEPTIONS: tuple[str, ...] = ()
"""Places that may wait, as `file.py:line` or `file.py`; none is known to be needed."""


def no_host_sync(day: Day, mode: str) -> Result:
    """A training step, optimizer included, waits for no value of the device."""
    if not day.is_cuda:
        return _runs_on_meta(mode)
    model = small_model(day.device, fusion_mode=mode, gate_noise="gumbel", dropout=0.1)
    batch, trainer = small_batches(day.device)[0], Trainer(model)
    trainer.step(batch)  # makes the optimizer's state, and whatever is computed once
    waits = Counter[str]()
    with listed_waits(waits):
        trainer.step(batch)
    unexpected = {place: n for place, n in waits.items() if not place.startswith(EXCEPTIONS or ("-",))}
    result: Result = {"waits": dict(waits), "exceptions": list(EXCEPTIONS)}
    if unexpected:
        raise Refuted(f"the step waits at {', '.join(unexpected)}", result)
    if not waits:
        with waits_are_errors():
            trainer.step(batch)
    return result


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
    model, batches = small_model("cpu", fusion_mode=mode, gate_noise="gumbel", dropout=0.1), small_batches("cpu")
    _ = model.receiver.head  # found once, by a comparison that reads values
    trainer = Trainer(model.to(DEVICE))
    trainer.optimizer = AdamW(trainer.parameters, foreach=True)  # there is no fused optimizer for `meta`
    with host_reads_refused():
        trainer.step(batches[0].to(DEVICE))
    return {"stand-in": "meta device"}

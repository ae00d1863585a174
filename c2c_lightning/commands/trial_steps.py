"""A few real training steps, to measure sizes and times before a run."""

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.optim import AdamW

from c2c_lightning.commands.first_config import LEARNING_RATE, FirstConfig
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.training.module import C2CModule

STEPS, WARM_UP = 5, 2
"""Steps of a trial, and those before its times count."""
ROWS = 64


@dataclass(frozen=True)
class Trial:
    """What the steps have shown.

    Attributes:
        model_parameters: of the receiver and of each sharer.
        fuser_parameters: of the fuser.
        device: where the steps ran.
        seconds: median time of a step.
        peak_bytes: largest memory of a GPU; None on a CPU.
    """

    model_parameters: tuple[int, ...]
    fuser_parameters: int
    device: torch.device
    seconds: float
    peak_bytes: int | None


class StepTimer(Callback):
    """Times training steps.

    Attributes:
        seconds: of each step.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        """Stop it once the device has finished."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds.append(time.perf_counter() - self._start)


def run_trial(config: FirstConfig) -> Trial:
    """Load the models and train for a few steps on the first rows, in a temporary folder.

    Raises:
        C2CError: any error that `lightning fit` would raise.
    """
    optimizer = partial(AdamW, lr=LEARNING_RATE, weight_decay=0.01)
    module = C2CModule(config.receiver, list(config.sharers), config.fuser, optimizer=optimizer)
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        data = InstructionDataModule(
            config.source.build(), batch_size=config.batch_size, max_rows=ROWS, max_bad_share=1.0, cache_dir=folder
        )
        trainer = Trainer(
            max_steps=STEPS,
            devices=1,
            default_root_dir=folder,
            callbacks=[timer],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(module, datamodule=data)
    models = (module.model.receiver, *module.model.sharers)
    device = trainer.strategy.root_device
    return Trial(
        model_parameters=tuple(_count(lm.model) for lm in models),
        fuser_parameters=_count(module.model.fuser),
        device=device,
        seconds=median(timer.seconds[WARM_UP:]),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without messages about a run that is none."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(former)

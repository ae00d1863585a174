"""Training throughput."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from c2c_lightning.data.joint_batch import StepBatch
from c2c_lightning.training._utils import is_log_step


class Throughput(Callback):
    """Logs samples and receiver tokens a second, over all processes, since the last log."""

    def __init__(self) -> None:
        """Start counting."""
        self._begin, self._samples, self._tokens = time.perf_counter(), 0, 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Start the clock here: validation and checkpoints between batches are not training time."""
        if not self._samples:
            self._begin = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        """Count a batch by its shapes: reading its masks would wait for the device."""
        self._samples += len(batch)
        self._tokens += batch.num_receiver_tokens
        if not is_log_step(trainer) and not trainer.is_last_batch:
            return
        seconds = max(time.perf_counter() - self._begin, 1e-9)
        pl_module.log("throughput/samples_per_second", self._samples * trainer.world_size / seconds)
        pl_module.log("throughput/tokens_per_second", self._tokens * trainer.world_size / seconds)
        self._samples, self._tokens = 0, 0

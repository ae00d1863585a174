"""One log line for each validation."""

import logging

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

logger = logging.getLogger(__name__)


class ValidationLine(Callback):
    """Logs the losses of a validation in words, which a progress bar has no room for."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The losses, except of the trial before training."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {name: f"{float(value):.3f}" for name, value in trainer.callback_metrics.items()}
        if "val/loss" in metrics:
            names = {"val/loss_receiver": "receiver alone", "val/loss_mismatched": "mismatched"}
            others = ", ".join(f"{words} {metrics[key]}" for key, words in names.items() if key in metrics)
            logger.info("step %d: validation loss %s (%s)", trainer.global_step, metrics["val/loss"], others)

"""The progress bar."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import BarColumn

from c2c_lightning.training._utils import is_log_step

# A line has room for a few short names; the logs have the full ones.
_SHORT = {
    "train/loss": "loss",
    "val/loss": "val",
    "val/loss_mismatched": "other",
    "val/loss_receiver": "alone",
    "gate/open_fraction": "open",
}


class FitProgressBar(RichProgressBar):
    """Lightning's bar with short names, and with values read as often as they are logged: reading waits for the device.

    `loss` is the training loss, `val` the validation loss, `other` that with another row's cache, `alone` that of the
    receiver alone, `open` the share of gates that are open.
    """

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=".3f"))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Values under their short names."""
        metrics = super().get_metrics(trainer, pl_module)
        return {_SHORT.get(name, name): value for name, value in metrics.items() if name != "v_num"}

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """A short bar, so that the values fit on the line."""
        columns: list[Any] = super().configure_columns(trainer)
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 12
        return columns

    def _update_metrics(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.training or is_log_step(trainer):
            super()._update_metrics(trainer, pl_module)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}"

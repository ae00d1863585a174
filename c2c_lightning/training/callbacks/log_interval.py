"""Logging of runs that are shorter than the interval of logging."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class LogInterval(Callback):
    """Lowers `log_every_n_steps` in a run of fewer steps, of which `metrics.csv` would have no loss otherwise."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Five logs in a run that would have none."""
        steps, every = trainer.estimated_stepping_batches, int(getattr(trainer, "log_every_n_steps", 0))
        if 0 < steps < every:
            trainer.log_every_n_steps = max(1, int(steps) // 5)  # type: ignore[attr-defined]

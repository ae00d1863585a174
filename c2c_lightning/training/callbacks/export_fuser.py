"""A fuser directory at the end of training."""

import logging
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.model.pretrained import save_pretrained
from c2c_lightning.training.callbacks._utils import is_trial, model_of

logger = logging.getLogger(__name__)


class ExportFuser(Callback):
    """Writes the fuser as it is at the end of `fit`."""

    def __init__(self, output_dir: str) -> None:
        """Write to `output_dir`."""
        self.output_dir = Path(output_dir)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, from one process; where it is sharded all of them put it together."""
        if is_trial(trainer):
            return
        model = model_of(pl_module)
        fuser = model.whole_fuser()
        if not trainer.is_global_zero or fuser is None:
            return
        model.training_record = training_record(trainer)
        save_pretrained(self.output_dir, fuser, model.receiver, model.sharers, model.training_record, overwrite=True)
        logger.info("fuser written to %s", self.output_dir)


def training_record(trainer: Trainer) -> TrainingRecord:
    """How the fuser was trained, as far as the Trainer knows."""
    data = getattr(trainer, "datamodule", None)
    results = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    optimizer = trainer.optimizers[0] if trainer.optimizers else None
    settings = {
        "optimizer": type(optimizer).__name__ if optimizer is not None else None,
        "learning_rate": optimizer.param_groups[0].get("initial_lr") if optimizer is not None else None,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
    }
    description = getattr(data, "description", None)
    return TrainingRecord(description, trainer.global_step, None, settings, results)

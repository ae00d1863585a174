"""A fuser directory at the end of training."""

import logging
from pathlib import Path

from lightning import LightningModule, Trainer

from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.model.pretrained import save_pretrained
from c2c_lightning.training._utils import model_of
from c2c_lightning.training.run_folder import FinalOutput, run_path

logger = logging.getLogger(__name__)


class ExportFuser(FinalOutput):
    """Writes the final fuser of `fit`.

    Args:
        output_dir: fuser directory, default `fuser` in the run folder.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir

    def outputs(self, trainer: Trainer) -> list[Path]:
        """The fuser directory."""
        return [run_path(trainer, self.output_dir, "fuser")]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the fuser from all processes and write it from the first one."""
        if not self.may_write(trainer):
            logger.warning("No step was trained, so no fuser is written.")
            return
        model = model_of(pl_module)
        fuser = model.whole_fuser()
        if not trainer.is_global_zero or fuser is None:
            return
        model.training_record = training_record(trainer)
        (output_dir,) = self.outputs(trainer)
        save_pretrained(output_dir, fuser, model.receiver, model.sharers, model.training_record, overwrite=True)
        logger.info("fuser written to %s", output_dir)


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

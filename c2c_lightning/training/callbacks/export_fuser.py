"""A fuser directory at the end of training."""

import logging
from pathlib import Path

from lightning import LightningModule, Trainer

from c2c_lightning.export.description import TrainingRecord
from c2c_lightning.training._utils import fuser_model_of
from c2c_lightning.training.baselines import Baseline
from c2c_lightning.training.run_folder import FinalOutput, run_path

logger = logging.getLogger(__name__)


class ExportFuser(FinalOutput):
    """Writes the final fuser of `fit`; of a baseline that trains the receiver, its adapters or the whole model.

    Args:
        output_dir: where to; default `fuser` (or `receiver`) in the run folder.
    """

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir

    def outputs(self, trainer: Trainer) -> list[Path]:
        """The fuser directory."""
        return [run_path(trainer, self.output_dir, str(trainer.lightning_module.output_name))]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the fuser from all processes and write it from the first one."""
        if not self.may_write(trainer):
            logger.warning("No step was trained, so no fuser is written.")
            return
        model, (output_dir,) = fuser_model_of(pl_module), self.outputs(trainer)
        model.training_record = training_record(trainer)
        model.write(output_dir, trainer.is_global_zero)
        if trainer.is_global_zero:
            logger.info("%s written to %s", pl_module.output_name, output_dir)


def _baseline(trainer: Trainer) -> Baseline:
    return getattr(trainer.lightning_module, "baseline", Baseline())


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
        **{f"baseline {name}": value for name, value in _baseline(trainer).settings.items()},
    }
    description = getattr(data, "description", None)
    return TrainingRecord(description, trainer.global_step, None, settings, results)

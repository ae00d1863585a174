"""The part of a training that does not depend on the number of models."""

from collections.abc import Sequence
from typing import Any

from lightning import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer

from c2c_lightning.training.callbacks.defaults import training_callbacks
from c2c_lightning.training.lightning_internals import callbacks_of, clip_gradients
from c2c_lightning.training.optim import ParameterGroups, Schedule
from c2c_lightning.training.resume import check_checkpoint


class FuserTraining(LightningModule):
    """Optimizer, schedule, clipping and callbacks of a training of fusers.

    Attributes:
        model: the trained model, from `configure_model` on.
    """

    model: Any
    optimizer_factory: OptimizerCallable
    schedule: Schedule
    parameter_groups: ParameterGroups
    loss_average: Any
    non_finite: Any

    def configure_callbacks(self) -> Sequence[Callback]:
        """Callbacks of every training, unless the Trainer has its own."""
        return training_callbacks(callbacks_of(self.trainer), self.loss_average, self.non_finite)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the trained parameters, and its schedule, stepped with it."""
        optimizer = self.parameter_groups.build(self.model, self.optimizer_factory)
        scheduler = self.schedule.build(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip, also for a fused optimizer in bf16-mixed precision."""
        clip_gradients(self.trainer.precision_plugin, optimizer, gradient_clip_val or 0.0, gradient_clip_algorithm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        check_checkpoint(checkpoint, self)
        self.model.is_untrained = False

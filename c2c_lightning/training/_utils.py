"""What callbacks ask of the module and the trainer, with its type."""

from typing import cast

from lightning import LightningModule, Trainer

from c2c_lightning.training.train_model import TrainModel


def model_of(module: LightningModule) -> TrainModel:
    """The fused model that a module trains."""
    return cast(TrainModel, module.model)


def is_log_step(trainer: Trainer) -> bool:
    """Whether values are logged after this step: reading one waits for the device, so it is not done at every step."""
    every = int(getattr(trainer, "log_every_n_steps", 1))
    return every > 0 and trainer.global_step % every == 0


def is_trial(trainer: Trainer) -> bool:
    """Whether this is a `fast_dev_run`, which writes nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))

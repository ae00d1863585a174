"""What callbacks ask of the module and the trainer, with its type."""

from collections.abc import Iterator
from typing import Any, Protocol, cast, runtime_checkable

from lightning import LightningModule, Trainer
from torch import nn

from c2c_lightning.training.hub_model import HubModel
from c2c_lightning.training.train_model import TrainModel


@runtime_checkable
class TrainedModel(Protocol):
    """What the models of all modules have in common.

    Attributes:
        is_untrained: whether it was neither trained nor loaded from a checkpoint.
    """

    is_untrained: bool

    def prompt_texts(self, batch: Any) -> list[str]:
        """The prompts of a training batch as the receiver reads them."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...


def trained_model(module: LightningModule) -> TrainedModel:
    """The model that a module trains, a fused model or maps."""
    return cast(TrainedModel, module.model)


def fuser_model_of(module: LightningModule) -> TrainModel | HubModel:
    """The fused model that a module trains, or the hub."""
    return cast("TrainModel | HubModel", module.model)


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

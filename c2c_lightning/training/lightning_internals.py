"""Every private interface of Lightning and torch that training relies on, with the version it was checked against.

`tests/training/test_lightning_internals.py` fails when one of them changes. Subclasses override further private
methods, which the same test lists.
"""

from typing import cast

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """All callbacks, those of the module too; an attribute that Lightning does not declare (lightning 2.6.6)."""
    return cast(list[Callback], getattr(trainer, "callbacks", []))


def is_between_steps(trainer: Trainer) -> bool:
    """Whether gradients of this window are still being accumulated (lightning 2.6.6)."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_at_step_border(trainer: Trainer) -> bool:
    """Whether no batch is being trained on, and no gradients are accumulated (lightning 2.6.6)."""
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    return progress.ready == progress.completed and not is_between_steps(trainer)


def validation_is_due(trainer: Trainer) -> bool:
    """Whether the fit loop validates after the current batch (lightning 2.6.6)."""
    loop = trainer.fit_loop
    if not sum(trainer.num_val_batches) or loop._data_fetcher is None:
        return False
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the current batch is the last one of its epoch (lightning 2.6.6)."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def requeue_environment(trainer: Trainer) -> SLURMEnvironment | None:
    """The Slurm environment, if Lightning requeues jobs in it (lightning 2.6.6)."""
    environment = trainer._accelerator_connector.cluster_environment
    return environment if isinstance(environment, SLURMEnvironment) and environment.auto_requeue else None


def clip_gradients(precision: Precision, optimizer: Optimizer, limit: float, algorithm: str | None) -> None:
    """Clip gradients as Lightning does, and those of a fused optimizer under bf16-mixed too (lightning 2.6.6).

    `MixedPrecision` refuses fused optimizers because they undo the loss scale themselves, after clipping; only float16
    has a loss scale.
    """
    chosen = GradClipAlgorithmType(algorithm or "norm")
    if isinstance(precision, MixedPrecision) and precision.scaler is None:
        super(MixedPrecision, precision).clip_gradients(optimizer, limit, chosen)
    else:
        precision.clip_gradients(optimizer, limit, chosen)


def exclude_from_ddp(module: nn.Module, names: list[str]) -> None:
    """Keep DDP from broadcasting some buffers in every forward pass (torch 2.13)."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)

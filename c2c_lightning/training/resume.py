"""Whether a checkpoint fits the configured run: verified before any of its content is loaded."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from c2c_lightning.errors import CheckpointError
from c2c_lightning.training._utils import trained_model
from c2c_lightning.training.finite_values import non_finite_in_checkpoint
from c2c_lightning.training.resumed_progress import LOOPS, check_loops, check_schedulers, keeps_state

logger = logging.getLogger(__name__)

# States with the shape of their parameter. Fused kernels do not check it and read out of bounds.
_SHAPED_STATES = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "momentum_buffer", "sum"}


class ResumeCheck(Callback):
    """Verifies a checkpoint's optimizer state before it is loaded, and sets the learning rate of the resumed step."""

    def __init__(self) -> None:
        self._checkpoint: dict[str, Any] = {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states of optimizers and schedules, which are made later."""
        kept = ("optimizer_states", "lr_schedulers", "global_step")
        self._checkpoint = {name: checkpoint[name] for name in kept if name in checkpoint}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the states with the optimizers and schedules."""
        if self._checkpoint:
            with damage_is_named():
                is_begun = self._checkpoint.get("global_step", 0) > 0
                check_optimizers(self._checkpoint.get("optimizer_states", []), trainer.optimizers, is_begun)
                schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
                check_schedulers(self._checkpoint.get("lr_schedulers"), schedulers)
        self._checkpoint = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn that `validate` measures an untrained fuser."""
        if trained_model(pl_module).is_untrained and trainer.state.fn == TrainerFn.VALIDATING:
            rank_zero_warn(
                "No checkpoint was loaded: these are the losses of an untrained fuser. Name one with `--ckpt_path`."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the rates of this run's schedule: a checkpoint holds those of its own, 0 at the end of a run."""
        trained_model(pl_module).is_untrained = False
        if trainer.global_step == 0:
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):
                set_scheduled_rates(config.scheduler)


def set_scheduled_rates(scheduler: LambdaLR) -> None:
    """Set an optimizer's learning rates to those of the scheduler's current step."""
    groups = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    for group, base, factor in groups:
        group["lr"] = base * factor(scheduler.last_epoch)


def check_checkpoint(checkpoint: Mapping[str, Any], module: LightningModule) -> None:
    """Refuse a checkpoint that the module cannot load.

    Raises:
        CheckpointError: names or shapes of weights differ, values are not finite, or training cannot resume from it.
    """
    with damage_is_named():
        _check_content(checkpoint, module)


@contextmanager
def damage_is_named() -> Iterator[None]:
    """Within it, content of an unexpected type is a named error.

    Raises:
        CheckpointError: with the reason.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f"The checkpoint is not one of `lightning fit`: {type(problem).__name__}: {problem}. Use an earlier one."
        ) from problem


def _check_content(checkpoint: Mapping[str, Any], module: LightningModule) -> None:
    trainer = module._trainer
    if "state_dict" not in checkpoint and trainer is not None and trainer.strategy.restore_checkpoint_after_setup:
        return  # a sharded checkpoint, which the strategy has loaded
    if not isinstance(checkpoint.get("state_dict"), Mapping):
        raise CheckpointError("This is not a Lightning checkpoint: it has no `state_dict`.")
    check_weights(checkpoint, module)
    if broken := non_finite_in_checkpoint(checkpoint):
        raise CheckpointError(f"The checkpoint holds NaN or infinity in {_listed(broken)}. Use an earlier one.")
    if trainer is None or trainer.state.fn not in LOOPS:
        return
    if trainer.state.fn == TrainerFn.FITTING and not checkpoint.get("optimizer_states"):
        raise CheckpointError(
            "The checkpoint holds weights only, so training cannot resume from it: the optimizer, the schedule and the "
            "position in the data are missing. Use a checkpoint written without `save_weights_only`."
        )
    check_loops(checkpoint.get("loops"), trainer)


def check_weights(checkpoint: Mapping[str, Any], module: LightningModule) -> None:
    """Compare names and shapes of a checkpoint's weights with the module's."""
    expected, saved = module.state_dict(), checkpoint["state_dict"]
    missing, extra = sorted(set(expected) - set(saved)), sorted(set(saved) - set(expected))
    misshapen = [name for name in expected if name in saved and expected[name].shape != saved[name].shape]
    found = [
        *([f"missing: {_listed(missing)}"] if missing else []),
        *([f"unexpected: {_listed(extra)}"] if extra else []),
        *(
            [f"{name} is {tuple(saved[name].shape)}, not {tuple(expected[name].shape)}" for name in misshapen[:2]]
            + [f"{len(misshapen)} tensors of another shape"] * (len(misshapen) > 2)
        ),
    ]
    if found:
        raise CheckpointError(
            f"The checkpoint does not fit the configured fuser ({'; '.join(found)}).{_differing(checkpoint, module)} "
            "Resume with the configuration of the run that wrote it: `fit_config.yaml` in its run folder."
        )


def _differing(checkpoint: Mapping[str, Any], module: LightningModule) -> str:
    """The fuser's choices that differ between checkpoint and configuration, as a sentence."""
    saved, here = (side.get("fuser") for side in (checkpoint.get("hyper_parameters", {}), module.hparams))
    if not isinstance(saved, Mapping) or not isinstance(here, Mapping):
        return ""
    changes = [
        f"{name} is {saved.get(name)} there and {here[name]} here" for name in here if saved.get(name) != here[name]
    ]
    return f" {'; '.join(changes)}." if changes else ""


def check_optimizers(states: list[Mapping[str, Any]], optimizers: list[Optimizer], is_begun: bool = True) -> None:
    """Refuse optimizer states of another optimizer, of other groups or of other shapes.

    Args:
        states: of the checkpoint.
        optimizers: those of this run.
        is_begun: whether the checkpoint was written after the first step.

    Raises:
        CheckpointError: a state does not fit.
    """
    for saved, optimizer in zip(states, optimizers, strict=False):
        _check_groups(saved, optimizer)
        if is_begun and not any(saved["state"].values()) and keeps_state(optimizer):
            raise CheckpointError(
                f"The checkpoint's state of {type(optimizer).__name__} is empty, so training cannot resume from it: "
                "the averages of its earlier steps are missing. Use an earlier checkpoint."
            )
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        names = [name for values in saved["state"].values() for name in values]
        for number, values in saved["state"].items():
            _check_state(values, parameters[number], set(names), f"state {number} of {type(optimizer).__name__}")


def _check_groups(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    name, groups = type(optimizer).__name__, optimizer.param_groups
    there, here = ([len(group["params"]) for group in side] for side in (saved["param_groups"], groups))
    if there != here:
        raise CheckpointError(
            f"The checkpoint's optimizer has parameter groups of {there} tensors, the configured {name} of {here}."
        )
    if foreign := sorted(set(saved["param_groups"][0]) - set(groups[0]) - {"initial_lr"}):
        raise CheckpointError(
            f"The checkpoint was written with another optimizer than {name}, which has no {_listed(foreign)}. Resume "
            "with the optimizer of the run that wrote it."
        )
    old, new = saved["param_groups"][0], {"initial_lr": groups[0]["lr"], **groups[0]}
    changed = [
        f"{key.removeprefix('initial_')} {old[key]} (configured: {new[key]})"
        for key in sorted(set(old) & set(new) - {"params", "lr"})
        if old[key] != new[key]
    ]
    if changed:
        logger.warning("Resuming with the checkpoint's optimizer settings: %s.", ", ".join(changed))


def _check_state(values: Mapping[str, Any], parameter: nn.Parameter, names: set[str], where: str) -> None:
    if missing := sorted(names - set(values)):
        raise CheckpointError(f"The checkpoint's {where} has no {_listed(missing)}.")
    for name, value in values.items():
        is_shaped = name in _SHAPED_STATES and isinstance(value, Tensor)
        if is_shaped and value.shape != parameter.shape:
            raise CheckpointError(
                f"The checkpoint's {where} has `{name}` of shape {tuple(value.shape)}, but its parameter has "
                f"{tuple(parameter.shape)}."
            )


def _listed(names: list[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")

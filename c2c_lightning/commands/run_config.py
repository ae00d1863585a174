"""The configuration of a run: checked before anything is made, and written into the run folder."""

import math
import os
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.training._utils import is_trial

MAX_CPU_PROCESSES = 16
"""Processes on one machine without a GPU, where it has fewer cores."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved configuration into the run folder and to every logger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Overwrite: a resumed run has the same folder."""
        super().__init__(*args, **{**kwargs, "overwrite": True})

    def outputs(self, trainer: Trainer) -> list[Path]:
        """The file of the current command."""
        return [Path(trainer.default_root_dir) / f"{TrainerFn(trainer.state.fn).value}_config.yaml"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write now, except in `fit`, where an earlier run's output is moved aside first."""
        if stage != TrainerFn.FITTING:
            self._write(trainer, pl_module, stage)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write once in `fit`."""
        self._write(trainer, pl_module, "fit")

    def _write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.already_saved or is_trial(trainer):
            return
        self.already_saved = True
        if trainer.is_global_zero:
            (path,) = self.outputs(trainer)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.parser.dump(self.config, skip_none=False))
            self.save_config(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Plain values to the loggers: W&B shows them as the run's config."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for part in trainer.loggers:
            part.log_hyperparams({"cli": config})


def check_run_folder(name: str) -> None:
    """Refuse a run folder without a name, one that is a file, and one that cannot be written.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    if not name.strip():
        raise ConfigurationError("trainer.default_root_dir is empty. Name a folder; `.` is the current one.")
    root = Path(os.path.expanduser(name))
    nearest = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigurationError(f"trainer.default_root_dir is {root}, but {nearest} is a file. Name a folder.")
    if not os.access(nearest, os.W_OK):
        raise ConfigurationError(f"trainer.default_root_dir is {root}, but {nearest} cannot be written to.")


def check_processes(trainer: Trainer) -> None:
    """Refuse far more processes than this machine has CPU cores.

    Raises:
        ConfigurationError: names both numbers.
    """
    # Lightning compares `devices` with the GPUs that exist, but starts any number of processes on a CPU.
    most = max(MAX_CPU_PROCESSES, os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
        raise ConfigurationError(
            f"trainer.devices asks for {trainer.num_devices} processes on a CPU with {os.cpu_count()} cores, but at "
            f"most {most} are started. Lower `trainer.devices`."
        )


def refuse_nan(value: Any, key: str = "") -> None:
    """Refuse NaN anywhere in a configuration.

    Raises:
        ConfigurationError: names the key.
    """
    if isinstance(value, float) and math.isnan(value):
        raise ConfigurationError(f"{key} is NaN (not a number). Correct the value.")
    parts = vars(value) if isinstance(value, Namespace) else value
    pairs = parts.items() if isinstance(parts, dict) else enumerate(parts) if isinstance(parts, list | tuple) else ()
    for name, part in pairs:
        refuse_nan(part, f"{key}.{name}" if key else str(name))


def check_last_checkpoint(trainer: Trainer) -> None:
    """Refuse `--ckpt_path last` where there is no checkpoint: Lightning would go on without one.

    Raises:
        ConfigurationError: names the folders that were searched.
    """
    writers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    if any(writer._find_last_checkpoints(trainer) for writer in writers):
        return
    folders = ", ".join(str(writer.dirpath) for writer in writers if writer.dirpath)
    where = f"in {folders}" if folders else "since no callback of this configuration writes any"
    raise ConfigurationError(
        f"`--ckpt_path last`: there is no checkpoint {where}. Run `lightning fit` first, or name a checkpoint file."
    )


def located_checkpoint(ckpt_path: str | None, trainer: Trainer) -> str | None:
    """The checkpoint file of `--ckpt_path`, also of `last`; None where there is none."""
    if ckpt_path != "last":
        return ckpt_path
    writers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    found = {path for writer in writers for path in writer._find_last_checkpoints(trainer)}
    return max(found, key=os.path.getmtime, default=None)


def replace_text(value: Any, old: str, new: str) -> Any:
    """A part of a configuration with a text replaced in every string."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [replace_text(part, old, new) for part in value]
    if isinstance(value, dict):
        return {name: replace_text(part, old, new) for name, part in value.items()}
    if isinstance(value, Namespace):
        changed: Any = Namespace(**replace_text(vars(value), old, new))  # type: ignore[no-untyped-call]
        return changed
    return value

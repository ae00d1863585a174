"""The run folder: all output of a run is below `trainer.default_root_dir`, and belongs to that run alone."""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from c2c_lightning.training._utils import is_trial
from c2c_lightning.training.lightning_internals import callbacks_of
from c2c_lightning.training.metrics_file import MetricsFile

logger = logging.getLogger(__name__)

PREVIOUS = "previous"
"""Folder in a run folder with the output of earlier runs, numbered from 1."""

# `lightning test` writes them into the run folder of the fuser that they describe.
_REPORTS = ("report.json", "report.md", "predictions.jsonl")


@runtime_checkable
class WritesFiles(Protocol):
    """A callback that names the files and folders it writes."""

    def outputs(self, trainer: Trainer) -> list[Path]:
        """Existing or future files and folders of a run."""
        ...


class FinalOutput(Callback):
    """Base of callbacks that write at the end of a fit, into a run folder that is this run's."""

    _has_trained = False

    def outputs(self, trainer: Trainer) -> list[Path]:
        """What the callback writes."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that output of an earlier run is out of the way."""
        self._has_trained = True

    def may_write(self, trainer: Trainer) -> bool:
        """Whether the output is this run's: a fit of no steps replaces nothing, unless it resumes the folder's run."""
        return not is_trial(trainer) and (self._has_trained or is_continuation(trainer, self.outputs(trainer)))


class RunFolder(Callback):
    """Moves the output of an earlier run to `previous/N` before a new run writes.

    A run that resumes from one of its own checkpoints continues in place; its `metrics.csv` keeps the rows up to the
    resumed step.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move earlier output aside on the first process; the others wait."""
        if not is_trial(trainer) and trainer.is_global_zero:
            files = [
                file
                for part in callbacks_of(trainer)
                if isinstance(part, WritesFiles)
                for file in part.outputs(trainer)
            ]
            files += [part.path for part in trainer.loggers if isinstance(part, MetricsFile)]
            if is_continuation(trainer, files):
                _truncate_metrics(trainer)
            else:
                set_aside(Path(trainer.default_root_dir), files)
        trainer.strategy.barrier()


def _truncate_metrics(trainer: Trainer) -> None:
    for part in trainer.loggers:
        if isinstance(part, MetricsFile):
            part.truncate(trainer.global_step)


def run_path(trainer: Trainer, path: str | os.PathLike[str] | None, name: str) -> Path:
    """A path as configured, or by default `name` in the run folder."""
    return Path(trainer.default_root_dir) / name if path is None else Path(path)


def is_continuation(trainer: Trainer, files: Iterable[Path]) -> bool:
    """Whether a run with this output resumes from a checkpoint of its folder, or has trained before in this process."""
    if trainer.ckpt_path is None:
        return trainer.global_step > 0
    folder = _absolute(Path(trainer.ckpt_path)).parent
    homes = {_absolute(Path(trainer.default_root_dir)), *(_absolute(file).parent for file in files)}
    inner = [folder.relative_to(home).parts for home in homes if folder.is_relative_to(home)]
    return bool(inner) and not any(PREVIOUS in parts for parts in inner)


def set_aside(root: Path, files: Iterable[Path]) -> None:
    """Move existing files and folders of an earlier run to `previous/N` of the run folder, N counting up."""
    root = _absolute(root)
    found = {_absolute(file) for file in files if os.path.lexists(file)}
    if not found:
        return
    found |= {root / name for name in _REPORTS if (root / name).exists()}
    numbers = [int(path.name) for path in (root / PREVIOUS).glob("*") if path.name.isdigit()]
    target = root / PREVIOUS / str(max(numbers, default=0) + 1)
    for file in sorted(found):
        # Output outside the run folder keeps its name only.
        place = target / (file.relative_to(root) if file.is_relative_to(root) else Path(file.parent.name, file.name))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, place)
    logger.warning(
        "%s holds the output of an earlier run, which was moved to %s. Set `--trainer.default_root_dir` to keep runs "
        "apart, or `--ckpt_path` to resume.",
        root,
        target,
    )


def _absolute(path: Path) -> Path:
    """An absolute path without following a link in its last part."""
    return path.expanduser().absolute().parent.resolve() / path.name if path.name else path.resolve()

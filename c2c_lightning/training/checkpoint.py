"""Checkpoints that are whole or not there, and a `last` that is the newest whole one."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from c2c_lightning.errors import CheckpointError
from c2c_lightning.export.from_checkpoint import damage_of

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name, flushes it to disk and renames it; reads only whole ones.

    Lightning itself writes to the system's temporary folder and moves the file, which is a copy if that is another
    file system: a kill in the middle leaves a cut checkpoint. torch does not look at the checksums in its files.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a kill at any moment leaves the old file or the new one.

        Args:
            checkpoint: what to write.
            path: a local path; other storage is left to Lightning.
            storage_options: not used.

        Raises:
            CheckpointError: when it cannot be written, say because the disk is full.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in target.parent.glob(f".*{_PARTIAL}"):
            left_behind.unlink(missing_ok=True)
        partial = target.with_name(f".{target.name}{_PARTIAL}")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as problem:  # torch reports a full disk as RuntimeError
            partial.unlink(missing_ok=True)
            raise CheckpointError(f"The checkpoint {target} cannot be written: {problem}") from problem
        _sync_folder(target.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint after checking its checksums.

        A damaged file whose name begins with `last` is replaced by the newest whole one in its folder, with a warning.

        Args:
            path: which one.
            map_location: where tensors go.
            weights_only: None or True runs no code from the file.

        Returns:
            Its content.

        Raises:
            CheckpointError: when it is missing, cut short or changed.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        damage = damage_of(Path(path))
        if damage is not None:
            if not Path(path).name.startswith(ModelCheckpoint.CHECKPOINT_NAME_LAST):
                raise CheckpointError(damage)
            whole = next(whole_checkpoints(Path(path).parent), None)
            if whole is None:
                raise CheckpointError(f"{damage} There is no whole one beside it.")
            rank_zero_warn(f"{damage} Going on from {whole}.")
            path = whole
        return super().load_checkpoint(path, map_location, True if weights_only is None else weights_only)


class Checkpoint(ModelCheckpoint):
    """`ModelCheckpoint` whose `last` is the newest whole checkpoint, whatever was interrupted.

    Saves at optimizer steps only: between accumulated batches there are gradients that no checkpoint holds, and a run
    resumed there would lose them. (Lightning does save there, for one on the first batch after a restart.)

    Takes the arguments of `ModelCheckpoint`. Keep at least two checkpoints (`save_top_k`), so that there is one to fall
    back to.
    """

    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        if super()._should_skip_saving_checkpoint(trainer):
            return True
        is_between_steps = trainer.fit_loop.epoch_loop._should_accumulate()
        if is_between_steps and trainer.validating:
            rank_zero_warn(
                "No checkpoint after this validation: it ran between accumulated batches. Let `val_check_interval` be "
                "a multiple of `accumulate_grad_batches`."
            )
        return is_between_steps

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """What `ckpt_path="last"` may mean: Lightning's choice, and whole files should the link to it be missing."""
        found: set[str] = super()._find_last_checkpoints(trainer)
        folder = self.dirpath or self._ModelCheckpoint__resolve_ckpt_dir(trainer)  # type: ignore[attr-defined]
        whole = next(whole_checkpoints(Path(folder)), None)
        newest = {str(whole)} if whole is not None else set()
        return newest or {path for path in found if Path(path).exists()}

    @staticmethod
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:
        """Replace the link in one step; Lightning removes it first, and a kill in between loses it."""
        if trainer.is_global_zero and os.path.abspath(filepath) != os.path.abspath(linkpath):
            fresh = Path(f"{linkpath}{_PARTIAL}")
            fresh.unlink(missing_ok=True)
            try:
                fresh.symlink_to(os.path.relpath(filepath, os.path.dirname(linkpath)))
                fresh.replace(linkpath)
            except OSError:  # no links on this file system
                ModelCheckpoint._link_checkpoint(trainer, filepath, linkpath)
                return
        trainer.strategy.barrier()


def whole_checkpoints(folder: Path) -> Iterator[Path]:
    """The undamaged checkpoints of a folder, newest first; damaged ones are named in a warning.

    Args:
        folder: where to look.

    Yields:
        Their paths.
    """
    files = [file for file in folder.glob("*.ckpt") if file.is_file() and not file.is_symlink()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        damage = damage_of(file)
        if damage is None:
            yield file
        else:
            rank_zero_warn(f"{damage} It is passed over.")


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

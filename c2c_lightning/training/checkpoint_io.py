"""Checkpoint files: written completely or not at all, and verified before they are read."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from c2c_lightning.errors import CheckpointError
from c2c_lightning.export.from_checkpoint import damage_of

PARTIAL = ".partial"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under another name, flushes it to disk and renames it; verifies checksums when reading.

    Lightning writes to the system's temporary folder and moves the file, which is a copy if that is another file
    system: a kill in between leaves a truncated checkpoint. torch does not verify the checksums in its files.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a kill at any moment leaves the old file or the new one. URLs are left to Lightning.

        Raises:
            CheckpointError: it cannot be written, for example because the disk is full.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for left_behind in target.parent.glob(f".*{PARTIAL}"):
                left_behind.unlink(missing_ok=True)
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
        """Read a checkpoint after verifying its checksums; no code in it is run.

        A damaged file whose name begins with `last` is replaced by the newest undamaged one in its folder, with a
        warning.

        Raises:
            CheckpointError: the file is missing or damaged, or code would have to be run to read it.
        """
        refuse_pickles(weights_only)
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only)
        damage = damage_of(Path(path))
        if damage is not None:
            path = _substitute(Path(path), damage)
        try:
            return super().load_checkpoint(path, map_location, True)
        except pickle.UnpicklingError as problem:
            raise CheckpointError(
                f"The checkpoint {path} holds Python objects besides tensors and plain values, and reading them would "
                "run code from the file. `lightning fit` writes none; take another checkpoint."
            ) from problem


def refuse_pickles(weights_only: bool | None) -> None:
    """Refuse `weights_only: false`.

    Raises:
        CheckpointError: always, if it is False.
    """
    if weights_only is False:
        raise CheckpointError(
            "`weights_only: false` would run code from a checkpoint file. Checkpoints of `lightning fit` do not need "
            "it: leave it out."
        )


def _substitute(path: Path, damage: str) -> Path:
    """The newest undamaged checkpoint in the folder of a damaged `last`."""
    if not path.name.startswith(ModelCheckpoint.CHECKPOINT_NAME_LAST):
        raise CheckpointError(damage)
    newest = next(undamaged_checkpoints(path.parent), None)
    if newest is None:
        raise CheckpointError(f"{damage} Its folder has no undamaged checkpoint.")
    rank_zero_warn(f"{damage} Resuming from {newest} instead.")
    return newest


def undamaged_checkpoints(folder: Path) -> Iterator[Path]:
    """The undamaged checkpoints of a folder, newest first; damaged ones are named in a warning."""
    files = [file for file in folder.glob("*.ckpt") if file.is_file() and not file.is_symlink()]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        damage = damage_of(file)
        if damage is None:
            yield file
        else:
            rank_zero_warn(f"{damage} It is ignored.")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

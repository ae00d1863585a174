"""From a Lightning checkpoint to a fuser directory, without loading a language model."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from c2c_lightning.errors import CheckpointError
from c2c_lightning.export.description import FuserDescription, TrainingRecord
from c2c_lightning.export.format import save_fuser
from c2c_lightning.fuser.fuser import Fuser

PREFIX = "model.fuser."


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint; no code in it is run.

    Raises:
        CheckpointError: it is missing, cut short, or no checkpoint of a C2C training.
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path} holds the pieces of several processes. Join them first: "
            f"`python -m lightning.pytorch.utilities.consolidate_checkpoint {path}`."
        )
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}. `lightning fit` writes them below its run folder.")
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint; it may be cut short. Take an earlier one."
        ) from error
    if not isinstance(checkpoint, dict) or "c2c" not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of `lightning fit` of this package.")
    return checkpoint


def fuser_of(checkpoint: dict[str, Any], where: str) -> tuple[Fuser, FuserDescription]:
    """The fuser that a checkpoint holds, and what describes it."""
    description = FuserDescription.from_json(checkpoint["c2c"], where)
    sharers = [sharer.geometry for sharer in description.sharers]
    fuser = Fuser(description.receiver.geometry, sharers, description.config)
    weights = {k.removeprefix(PREFIX): v for k, v in checkpoint["state_dict"].items() if k.startswith(PREFIX)}
    # A compiled fuser names its parts through the wrapper.
    fuser.load_state_dict({name.replace("_orig_mod.", ""): value for name, value in weights.items()})
    return fuser.eval(), description


def export_checkpoint(path: Path, output_dir: Path) -> None:
    """Write the fuser directory of a checkpoint."""
    checkpoint = load_checkpoint(path)
    fuser, described = fuser_of(checkpoint, str(path))
    record = described.training or TrainingRecord(steps=checkpoint.get("global_step"))
    save_fuser(output_dir, fuser, FuserDescription(described.config, described.receiver, described.sharers, record))

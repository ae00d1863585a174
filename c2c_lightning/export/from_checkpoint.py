"""Lightning checkpoints without Lightning: checked for damage, and read as a fuser."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.errors import CheckpointError
from c2c_lightning.export.description import FuserDescription, TrainingRecord
from c2c_lightning.export.format import CONFIG_NAME, save_fuser
from c2c_lightning.export.fuser_tensors import build_fuser
from c2c_lightning.fuser.fuser import Fuser

PREFIX = "model.fuser."
PAIR_KEY, HUB_KEY = "c2c", "c2c_hub"
"""Keys of a checkpoint: the description of a fuser, or that of a hub."""


def damage_of(path: Path) -> str | None:
    """The damage of a file that `torch.save` wrote, in a sentence; None if it is undamaged.

    Such files are zip archives with a checksum of every part, which torch itself does not verify.
    """
    if not path.exists():
        return f"There is no checkpoint {path}."
    if path.is_dir():  # sharded checkpoints are checked elsewhere
        return None
    if not path.is_file():  # reading a pipe or a device may never end
        return f"{path} is not a regular file, so it is no checkpoint."
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                return f"The checkpoint {path} is damaged: the checksum of {broken} is wrong."
            archive.getinfo(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
        # torch's reader is stricter about headers; on `meta` no tensor is read.
        torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except pickle.UnpicklingError:  # undamaged, but it holds more than tensors and plain values
        return None
    except (zipfile.BadZipFile, StopIteration, OSError, EOFError, RuntimeError, ValueError, KeyError) as problem:
        return f"The checkpoint {path} is damaged: it was cut short or changed ({problem})."
    return None


def load_checkpoint(path: Path, key: str = PAIR_KEY) -> dict[str, Any]:
    """The content of a checkpoint with a fuser, or with a hub (`HUB_KEY`); code in it is not run."""
    if path.is_dir():
        raise CheckpointError(_directory_message(path))
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}. `lightning fit` writes them below its run folder.")
    if damage := damage_of(path):
        raise CheckpointError(f"{damage} Use an earlier one.")
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint without running code in it.") from error
    content = checkpoint if isinstance(checkpoint, dict) else {}
    if key not in content or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(_content_message(path, content, key))
    return content


def _content_message(path: Path, content: Mapping[str, Any], wanted: str) -> str:
    if wanted == PAIR_KEY and HUB_KEY in content:
        return (
            f"{path} is a checkpoint of a hub. Write the fuser of a pair: `lightning fuser-hub export --hub {path} "
            "--direction SHARER_to_RECEIVER --output_dir DIR`."
        )
    if wanted == HUB_KEY and PAIR_KEY in content:
        return f"{path} is a checkpoint of the fuser of one pair, not of a hub."
    return f"{path} is no checkpoint of `lightning fit` of this package."


def _directory_message(path: Path) -> str:
    if (path / CONFIG_NAME).is_file():
        return f"{path} is a fuser directory already. Name a checkpoint (.ckpt) of `lightning fit`."
    if checkpoints := sorted(path.glob("*.ckpt")):
        return f"{path} is a folder of checkpoints. Name one of them, such as {checkpoints[-1]}."
    return (
        f"{path} is a folder. If it holds the parts of a sharded checkpoint, join them first: "
        f"`python -m lightning.pytorch.utilities.consolidate_checkpoint {path}`."
    )


def fuser_of(checkpoint: dict[str, Any], where: str) -> tuple[Fuser, FuserDescription]:
    """The fuser of a checkpoint in float32, and its description; `where` is the file, for messages."""
    if isinstance(checkpoint["c2c"], dict) and (baseline := checkpoint["c2c"].get("baseline")):
        raise CheckpointError(
            f"{where} holds a trained receiver ({baseline}), not a fuser. The callback ExportFuser writes it to "
            "`receiver` in the run folder at the end of training; `--ckpt_path` continues an unfinished one."
        )
    description = FuserDescription.from_json(checkpoint["c2c"], where)
    return build_fuser(description, fuser_tensors(checkpoint), where).float().eval(), description


def fuser_tensors(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of the fuser or hub in a checkpoint."""
    # The names of a compiled fuser include the wrapper.
    return {
        name.removeprefix(PREFIX).replace("_orig_mod.", ""): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if isinstance(tensor, Tensor) and name.startswith(PREFIX)
    }


def export_checkpoint(path: Path, output_dir: Path, overwrite: bool = False) -> None:
    """Write the fuser directory of a checkpoint; see `save_fuser`."""
    checkpoint = load_checkpoint(path)
    fuser, description = fuser_of(checkpoint, str(path))
    record = description.training or TrainingRecord()
    if record.steps is None:
        record = replace(record, steps=checkpoint.get("global_step"))
    save_fuser(output_dir, fuser, replace(description, training=record), overwrite)

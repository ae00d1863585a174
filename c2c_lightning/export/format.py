"""The fuser directory: `fuser_config.json`, `model.safetensors` and a model card; read strictly, written atomically."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from torch import Tensor

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.card import model_card
from c2c_lightning.export.description import FuserDescription
from c2c_lightning.export.fuser_tensors import build_fuser, check_checksum, check_finite, checksum_of, read_tensors
from c2c_lightning.export.hub_messages import REQUEST_ERRORS, hub_message
from c2c_lightning.export.json_file import read_json
from c2c_lightning.fuser.fuser import Fuser

CONFIG_NAME = "fuser_config.json"
HUB_CONFIG_NAME = "hub_config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"


@dataclass(frozen=True)
class SavedFuser:
    """A fuser read from disk, in evaluation mode, and its description."""

    description: FuserDescription
    fuser: Fuser


def save_fuser(directory: str | Path, fuser: Fuser, description: FuserDescription, overwrite: bool = False) -> Path:
    """Write a fuser directory. Language models are only named in it.

    Args:
        directory: the directory; other files in it are kept.
        fuser: the fuser, on any device.
        description: its description.
        overwrite: whether a fuser with other weights may be replaced.

    Raises:
        FuserFormatError: weights that are not finite, or a directory that holds another fuser.
    """
    return write_directory(directory, fuser.state_dict(), description, overwrite)


def load_fuser(
    path_or_hub_id: str | Path, revision: str | None = None, dtype: torch.dtype | None = torch.float32
) -> SavedFuser:
    """Read a fuser directory, without its language models.

    Args:
        path_or_hub_id: a local directory, or a model of the hub.
        revision: hub revision (branch, tag or commit).
        dtype: type of the fuser's weights; None keeps that of the file.

    Raises:
        FuserFormatError: no fuser there, or a file that is missing, damaged, of a newer format, or does not fit the
            other.
    """
    directory = find_directory(path_or_hub_id, revision)
    raw = _read_config(directory)
    description = FuserDescription.from_json(raw, str(directory / CONFIG_NAME))
    tensors, where = read_tensors(directory / WEIGHTS_NAME), str(directory / WEIGHTS_NAME)
    fuser = build_fuser(description, tensors, where)
    # Last, since tensors that do not fit have a message that says more.
    check_checksum(tensors, raw.get("checksum"), where)
    return SavedFuser(description, fuser.to(dtype).eval())


def find_directory(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The local directory of a fuser; only JSON, safetensors and the card are downloaded."""
    path = Path(path_or_hub_id).expanduser()
    # `Path.is_dir` raises OSError for a name that no file can have, such as one of more than 255 characters.
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise FuserFormatError(f"{path} is a file. Name the directory of a fuser (`lightning export` makes one).")
    try:
        patterns = ["*.json", "*.safetensors", "*.md"]
        return Path(snapshot_download(str(path_or_hub_id), revision=revision, allow_patterns=patterns))
    except REQUEST_ERRORS as error:
        raise FuserFormatError(
            f"there is no fuser at {str(path_or_hub_id)!r}: no such local directory, and "
            f"{hub_message(error, str(path_or_hub_id), revision)}"
        ) from error


def read_description(directory: Path) -> FuserDescription:
    """The description in a fuser directory."""
    return FuserDescription.from_json(_read_config(directory), str(directory / CONFIG_NAME))


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise FuserFormatError(f"{directory} holds no {CONFIG_NAME}. {_other_formats(directory)}")
    return read_json(path)


def _other_formats(directory: Path) -> str:
    if any((directory / part).exists() for part in ("projector_config.json", "final/projector_config.json")):
        return f"It has the layout of the paper's authors: lightning convert --input {directory} --output_dir NEW"
    if (directory / HUB_CONFIG_NAME).exists():
        return (
            f"It holds a hub: lightning fuser-hub export --hub {directory} --direction SHARER_to_RECEIVER "
            "--output_dir NEW"
        )
    if any(directory.glob("*.ckpt")):
        return "It holds Lightning checkpoints: lightning export --ckpt_path FILE --output_dir NEW"
    return "Name a directory that `lightning export` or `save_pretrained` made."


def write_directory(
    directory: str | Path, tensors: Mapping[str, Tensor], description: FuserDescription, overwrite: bool = False
) -> Path:
    """Write all files of a fuser directory, or none of them; see `save_fuser`. Types of tensors are kept."""
    count = num_parameters(tensors)
    return write_files(
        directory, tensors, CONFIG_NAME, description.to_json(), model_card(description, count), overwrite
    )


def write_files(
    directory: str | Path,
    tensors: Mapping[str, Tensor],
    config_name: str,
    config: Mapping[str, Any],
    card: str,
    overwrite: bool = False,
) -> Path:
    """Write weights, description and card into a directory, or none of them; see `save_fuser`.

    Args:
        directory: the directory; other files in it are kept.
        tensors: the weights, whose types are kept.
        config_name: name of the file of the description.
        config: its content, to which the checksum of the weights is added.
        card: the model card.
        overwrite: whether other weights may be replaced.
    """
    target = Path(directory).expanduser()
    if target.exists() and not target.is_dir():
        raise FuserFormatError(f"{target} is a file, so a fuser cannot be written there. Name a directory.")
    check_finite(tensors, f"the fuser for {target}")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = {**config, "checksum": checksum_of(contiguous)}
    if not overwrite:
        check_replaceable(target, content["checksum"], config_name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same file system, where a rename is atomic.
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        save_file(contiguous, staging / WEIGHTS_NAME, metadata={"format": "pt"})
        (staging / CARD_NAME).write_text(card, encoding="utf-8")
        (staging / config_name).write_text(_compact_json(content), encoding="utf-8")
        _set_ordinary_permissions(staging)
        _publish(staging, target, config_name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def num_parameters(tensors: Mapping[str, Tensor]) -> int:
    """Number of parameters among the tensors of a fuser; the gates' temperature is a buffer."""
    return sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(".temperature"))


def check_replaceable(directory: Path, checksum: str, config_name: str = CONFIG_NAME) -> None:
    """Refuse to replace a fuser with other weights than those of a checksum, and files of a folder without a fuser."""
    if not (directory / config_name).is_file():
        if foreign := [name for name in (WEIGHTS_NAME, CARD_NAME) if (directory / name).exists()]:
            raise FuserFormatError(
                f"{directory} holds no fuser, but has {' and '.join(foreign)}, which a fuser would replace. Name "
                "another directory, or replace them with `--overwrite` (in Python `overwrite=True`)."
            )
        return
    try:
        raw = read_json(directory / config_name)
        recorded = raw.get("checksum") or checksum_of(read_tensors(directory / WEIGHTS_NAME))
    except FuserFormatError:  # a damaged fuser may be the only copy, too
        recorded = None
    if recorded != checksum:
        raise FuserFormatError(
            f"{directory} holds another fuser already. Name another directory, or replace it with `--overwrite` "
            "(in Python `overwrite=True`)."
        )


def _compact_json(content: Mapping[str, Any]) -> str:
    """Indented JSON, but lists of numbers on one line."""
    text = json.dumps(content, indent=2)
    return re.sub(r"\[\s+(?:-?\d+|null)(?:,\s+(?:-?\d+|null))*\s+\]", lambda m: re.sub(r"\s+", "", m[0]), text) + "\n"


def _publish(staging: Path, target: Path, config_name: str) -> None:
    """Move finished files to the directory."""
    if not target.exists():
        staging.rename(target)
        return
    # Other files stay, so file by file. A directory without its description is refused, so a reader never gets a
    # mixture of two fusers.
    (target / config_name).unlink(missing_ok=True)
    for name in (WEIGHTS_NAME, CARD_NAME, config_name):
        os.replace(staging / name, target / name)


def _set_ordinary_permissions(directory: Path) -> None:
    """Permissions under the umask; temporary folders and safetensors files are private to the user."""
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    directory.chmod(0o777 & ~mask)
    for file in directory.iterdir():
        file.chmod(0o666 & ~mask)

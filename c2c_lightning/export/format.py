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
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.card import model_card
from c2c_lightning.export.description import FuserDescription
from c2c_lightning.fuser.fuser import Fuser

CONFIG_NAME = "fuser_config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"

_AGAIN = "Export or download it again."


@dataclass(frozen=True)
class SavedFuser:
    """A fuser as it was read from disk.

    Attributes:
        description: what it is and which models it belongs to.
        fuser: the fuser itself, in evaluation mode.
    """

    description: FuserDescription
    fuser: Fuser


def save_fuser(directory: str | Path, fuser: Fuser, description: FuserDescription) -> Path:
    """Write a fuser directory. Language models are only named in it.

    Args:
        directory: where to; other files in it stay.
        fuser: the fuser, on any device.
        description: what it is.

    Returns:
        The directory.
    """
    return write_directory(directory, fuser.state_dict(), description)


def load_fuser(
    path_or_hub_id: str | Path, revision: str | None = None, dtype: torch.dtype = torch.float32
) -> SavedFuser:
    """Read a fuser directory, without its language models.

    Args:
        path_or_hub_id: a local directory, or a model of the hub.
        revision: hub revision (branch, tag or commit).
        dtype: type of the fuser's weights.

    Raises:
        FuserFormatError: nothing there, or something missing, superfluous, misshapen, cut short or newer.
    """
    directory = find_directory(path_or_hub_id, revision)
    description = read_description(directory)
    tensors = read_tensors(directory / WEIGHTS_NAME)
    fuser = build_fuser(description, tensors, str(directory / WEIGHTS_NAME))
    return SavedFuser(description, fuser.to(dtype).eval())


def find_directory(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The local directory of a fuser; downloads JSON, safetensors and the card, and nothing that could run.

    Raises:
        FuserFormatError: it is neither a local directory nor on the hub.
    """
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise FuserFormatError(f"{path} is a file. Name the directory of a fuser (`lightning export` makes one).")
    try:
        patterns = ["*.json", "*.safetensors", "*.md"]
        return Path(snapshot_download(str(path_or_hub_id), revision=revision, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FuserFormatError(
            f"there is no fuser at {str(path_or_hub_id)!r}: no such local directory, and the hub gave none "
            f"({type(error).__name__}). Check the name, or the connection."
        ) from error


def read_description(directory: Path) -> FuserDescription:
    """What a fuser directory says of itself.

    Raises:
        FuserFormatError: there is no readable `fuser_config.json`.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        raise FuserFormatError(f"{directory} holds no {CONFIG_NAME}. {_what_it_may_be(directory)}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FuserFormatError(f"{path} is no JSON ({error}); it may be cut short. {_AGAIN}") from error
    return FuserDescription.from_json(raw, str(path))


def _what_it_may_be(directory: Path) -> str:
    if any((directory / part).exists() for part in ("projector_config.json", "final/projector_config.json")):
        return f"It has the layout of the paper's authors: lightning convert --input {directory} --output_dir NEW"
    if any(directory.glob("*.ckpt")):
        return "It holds Lightning checkpoints: lightning export --ckpt_path FILE --output_dir NEW"
    return "Name a directory that `lightning export` or `save_pretrained` made."


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        FuserFormatError: the file is not there or cut short.
    """
    if not path.is_file():
        raise FuserFormatError(f"{path.parent} holds no {path.name}, so the fuser has no weights. {_AGAIN}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FuserFormatError(f"{path} cannot be read ({error}); it may be cut short. {_AGAIN}") from error


def build_fuser(description: FuserDescription, tensors: Mapping[str, Tensor], where: str) -> Fuser:
    """A fuser with the given weights, in their own type.

    Args:
        description: what it is.
        tensors: its state dict.
        where: where they come from, for messages.

    Raises:
        FuserFormatError: tensors that are missing, superfluous or of the wrong shape.
    """
    # On the meta device nothing is drawn that would only be overwritten.
    with torch.device("meta"):
        fuser = Fuser(
            description.receiver.geometry, [sharer.geometry for sharer in description.sharers], description.config
        )
    wanted = {name: tuple(tensor.shape) for name, tensor in fuser.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    misshapen = [
        f"{name} {given[name]} instead of {wanted[name]}"
        for name in wanted.keys() & given.keys()
        if wanted[name] != given[name]
    ]
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "not part of this fuser": sorted(given.keys() - wanted.keys()),
        "of the wrong shape": sorted(misshapen),
        "not floating-point": sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point()),
    }
    found = [f"{len(names)} tensors are {what} ({_some(names)})" for what, names in faults.items() if names]
    if found:
        raise FuserFormatError(
            f"the weights in {where} do not fit {CONFIG_NAME}: {'; '.join(found)}. "
            f"The files of two fusers may be mixed. {_AGAIN}"
        )
    fuser.load_state_dict(dict(tensors), strict=True, assign=True)
    return fuser


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def write_directory(directory: str | Path, tensors: Mapping[str, Tensor], description: FuserDescription) -> Path:
    """Write all files of a fuser directory, or none of them.

    Args:
        directory: where to; other files in it stay.
        tensors: the fuser's state dict; types are kept.
        description: what it is.
    """
    target = Path(directory)
    if target.exists() and not target.is_dir():
        raise FuserFormatError(f"{target} is a file, so a fuser cannot be written there. Name a directory.")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        staging.chmod(0o777 & ~_umask())
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, staging / WEIGHTS_NAME, metadata={"format": "pt"})
        num_parameters = sum(tensor.numel() for name, tensor in contiguous.items() if not name.endswith(".temperature"))
        (staging / CARD_NAME).write_text(model_card(description, num_parameters), encoding="utf-8")
        (staging / CONFIG_NAME).write_text(_compact_json(description.to_json()), encoding="utf-8")
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _compact_json(content: Mapping[str, Any]) -> str:
    """Indented JSON, but lists of numbers on one line."""
    text = json.dumps(content, indent=2)
    return re.sub(r"\[\s+(?:-?\d+|null)(?:,\s+(?:-?\d+|null))*\s+\]", lambda m: re.sub(r"\s+", "", m[0]), text) + "\n"


def _publish(staging: Path, target: Path) -> None:
    """Put finished files in their place."""
    if not target.exists():
        staging.rename(target)
        return
    # Other files stay, so file by file; without its description the directory is refused, never read half.
    (target / CONFIG_NAME).unlink(missing_ok=True)
    for name in (WEIGHTS_NAME, CARD_NAME, CONFIG_NAME):
        os.replace(staging / name, target / name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

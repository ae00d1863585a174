"""The tensors of a fuser file: built into a fuser strictly, and checked against their checksum."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.description import FuserDescription
from c2c_lightning.export.json_file import DOWNLOAD_AGAIN
from c2c_lightning.fuser.fuser import Fuser

Module = TypeVar("Module", bound=nn.Module)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    if not path.is_file():
        raise FuserFormatError(f"{path.parent} holds no {path.name}, so the fuser has no weights. {DOWNLOAD_AGAIN}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FuserFormatError(f"{path} cannot be read ({error}); it may be cut short. {DOWNLOAD_AGAIN}") from error


def build_fuser(description: FuserDescription, tensors: Mapping[str, Tensor], where: str) -> Fuser:
    """A fuser with the given weights, whose types are kept; `where` is their file, for messages.

    Raises:
        FuserFormatError: tensors that are missing, superfluous, of the wrong shape, or not finite.
    """
    config, receiver = description.config, description.receiver.geometry
    return load_strictly(lambda: Fuser(receiver, description.geometries, config), tensors, where)


def load_strictly(build: Callable[[], Module], tensors: Mapping[str, Tensor], where: str) -> Module:
    """A module with the given weights, whose types are kept; `where` is their file, for messages.

    Raises:
        FuserFormatError: tensors that are missing, superfluous, of the wrong shape, or not finite.
    """
    # On the meta device no initial weights are drawn.
    with torch.device("meta"):
        fuser = build()
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
            f"the weights in {where} do not fit the fuser's description: {'; '.join(found)}. "
            f"The files of two fusers may be mixed. {DOWNLOAD_AGAIN}"
        )
    check_finite(tensors, where)
    # Assigned: tensors on the meta device cannot be copied to, and the types of the file are kept.
    fuser.load_state_dict(dict(tensors), strict=True, assign=True)
    return fuser


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are NaN or infinite; the message has their names."""
    if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise FuserFormatError(
            f"the weights in {where} are not finite: {len(broken)} tensors hold NaN or infinity ({_some(broken)}). "
            "The training diverged, or the file is damaged. Use an earlier checkpoint."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def checksum_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


def precision_free_checksum(tensors: Mapping[str, Tensor]) -> str:
    """The checksum of the tensors in float32, which `load_fuser` and `lightning export` give."""
    return checksum_of({name: tensor.detach().float() for name, tensor in tensors.items()})


def check_checksum(tensors: Mapping[str, Tensor], recorded: object, where: str) -> None:
    """Refuse tensors that are not those that were saved; directories of earlier versions recorded no checksum."""
    if recorded is not None and checksum_of(tensors) != recorded:
        raise FuserFormatError(
            f"the weights in {where} are not those that were saved with it: their checksum is another. The file was "
            f"changed or damaged. {DOWNLOAD_AGAIN}"
        )

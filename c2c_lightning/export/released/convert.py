"""Conversion of the authors' fusers to fuser directories and back, bit for bit (their files: `projector_files.py`)."""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.alignment.template_alignment import OWN_TOKENS
from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.description import FuserDescription
from c2c_lightning.export.format import load_fuser, write_directory
from c2c_lightning.export.fuser_tensors import build_fuser
from c2c_lightning.export.released.describe import SCHEDULES, describe_released
from c2c_lightning.export.released.projector_files import ReleasedSharer, read_released
from c2c_lightning.export.released.projector_layout import (
    RELEASED_KINDS,
    ProjectorLayout,
    projector_json,
    released_name,
    stack_layers,
    unstack_layer,
)
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.kind import FuserKind, kind_name

logger = logging.getLogger(__name__)


def convert_released(
    input_dir: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    receiver: str | Path | None = None,
    sharers: str | Path | Sequence[str | Path] | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert fusers of the authors into one fuser directory.

    Args:
        input_dir: a released directory (the one that holds `final/`, or `final/` itself), or one for each sharer.
        output_dir: where our directory is written.
        receiver: name of the receiver; default what their `config.json` says.
        sharers: name of each sharer; default likewise.
        overwrite: whether another fuser in `output_dir` may be replaced.

    Raises:
        FuserFormatError: a file that is missing, damaged, of an unknown class, or does not fit the others.
    """
    inputs = [input_dir] if isinstance(input_dir, str | Path) else list(input_dir)
    parts = [part for folder in inputs for part in read_released(Path(folder))]
    if not parts:
        raise FuserFormatError("no released fuser is named. Pass its directory, or one for each sharer.")
    sharers = [sharers] if isinstance(sharers, str | Path) else sharers
    if sharers is not None and len(sharers) != len(parts):
        raise FuserFormatError(
            f"{len(sharers)} sharers are named, but the inputs hold {len(parts)}. Name one for each."
        )
    receiver_name = _model_name(receiver, parts[0], "base_model", "receiver")
    named: Sequence[str | Path | None] = sharers if sharers is not None else [None] * len(parts)
    names = [_model_name(given, part, "teacher_model", "sharers") for given, part in zip(named, parts, strict=True)]
    description = describe_released(parts, receiver_name, names)
    tensors = _gather(description, parts)
    # Checked before anything is written.
    build_fuser(description, tensors, str(inputs[0]))
    return write_directory(output_dir, tensors, description, overwrite)


def to_released(fuser_dir: str | Path, output_dir: str | Path, revision: str | None = None) -> Path:
    """Write a fuser in the authors' layout; the way back of `convert_released`.

    Args:
        fuser_dir: our fuser directory, or a fuser on the hub.
        output_dir: where `config.json` and `final/` are written; with several sharers one such directory for each,
            `sharer_0`, `sharer_1`, ... in it. It must not exist, or be empty.
        revision: hub revision.

    Raises:
        FuserFormatError: a fuser that their code cannot express, or `output_dir` is taken.
    """
    target = Path(output_dir)
    saved = load_fuser(fuser_dir, revision, dtype=None)
    description, fuser = saved.description, saved.fuser
    _check_expressible(description)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FuserFormatError(f"{target} is there already and not empty. Name a new directory.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as staging:
        root = Path(staging) / "released"
        for number in range(len(description.sharers)):
            folder = root if len(description.sharers) == 1 else root / f"sharer_{number}"
            _write_sharer(folder, description, fuser, number)
        if target.exists():
            target.rmdir()
        shutil.move(root, target)
    return target


def _check_expressible(description: FuserDescription) -> None:
    config = description.config
    shapes = [layer for model in (description.receiver, *description.sharers) for layer in model.geometry.layers]
    kinds = {kind_name(kind) for kind, _ in config.kinds(len(description.sharers))} - RELEASED_KINDS
    reasons = {
        f"the fuser kind {', '.join(sorted(kinds))}": bool(kinds),
        f"token_alignment {config.token_alignment}": config.token_alignment in OWN_TOKENS,
        f"fusion_mode {config.fusion_mode}": config.fusion_mode == "prompt",
        "keys and values of different width": any(layer.key_dim != layer.value_dim for layer in shapes),
    }
    if unknown := [reason for reason, holds in reasons.items() if holds]:
        raise FuserFormatError(f"the authors' layout cannot express {' and '.join(unknown)} of this fuser.")


def _write_sharer(folder: Path, description: FuserDescription, fuser: Fuser, number: int) -> None:
    """One sharer's part as a released directory."""
    final = folder / "final"
    final.mkdir(parents=True)
    layers: dict[str, list[list[int]]] = {}
    kind, settings = description.config.kinds(len(description.sharers))[number]
    schedules = (
        {} if description.training is None else dict(enumerate(description.training.settings.get(SCHEDULES, ())))
    )
    trained = replace(description.config, **schedules.get(number, {}))
    # A group holds the layers of one shape; their files are numbered by receiver layer.
    for layer, source, state in sorted(_layer_states(fuser, number), key=lambda item: item[0]):
        index = len(layers)
        layers[str(layer)] = [[source, index]]
        torch.save(state, final / f"projector_{index}.pt")
        shapes = description.receiver.geometry.layers[layer], description.sharers[number].geometry.layers[source]
        dtype = next(iter(state.values())).dtype
        content = projector_json(kind_name(kind), settings, trained, shapes, dtype)
        _write_json(final / f"projector_{index}.json", content)
    _write_json(final / "projector_config.json", {"0": {"1": layers}})
    _write_json(folder / "config.json", {"model": _model_settings(description, number)})


def _layer_states(fuser: Fuser, number: int) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    """Receiver layer, sharer layer and the authors' state dict, for each fused layer of a sharer."""
    settings = fuser.sharers[number].kind_config
    for group in fuser.sharers[number].groups:
        stacked = group.state_dict()
        for index, (layer, source) in enumerate(zip(group.receiver_layers, group.sharer_layers, strict=True)):
            yield layer, source, {released_name(n, settings): unstack_layer(n, t, index) for n, t in stacked.items()}


def _model_settings(description: FuserDescription, number: int) -> dict[str, Any]:
    config = description.config
    is_aligned = config.token_alignment in ("first", "longest")
    return {
        "base_model": description.receiver.name,
        "teacher_model": description.sharers[number].name,
        "is_do_alignment": is_aligned,
        "alignment_strategy": config.token_alignment if is_aligned else "first",
        "mapping": "last_aligned" if config.layer_alignment == "terminal" and config.layer_map is None else "k_nearest",
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _model_name(given: str | Path | None, part: ReleasedSharer, role: str, argument: str) -> str:
    name = str(given) if given is not None else part.named(role)
    if name is None:
        raise FuserFormatError(f"{part.folder} has no config.json that names its {role}. Pass `{argument}`.")
    return name


def groups_of(fuser: Fuser) -> Iterator[tuple[int, str, FuserKind]]:
    """Sharer number, name prefix in the state dict, and stack."""
    for number, sharer in enumerate(fuser.sharers):
        for index, group in enumerate(sharer.groups):
            yield number, f"sharers.{number}.groups.{index}.", group


def _gather(description: FuserDescription, parts: Sequence[ReleasedSharer]) -> dict[str, Tensor]:
    """Our state dict from their tensors."""
    with torch.device("meta"):
        fuser = Fuser(description.receiver.geometry, description.geometries, description.config)
    tensors: dict[str, Tensor] = {}
    for number, prefix, group in groups_of(fuser):
        projectors = [parts[number].projectors[layer] for layer in group.receiver_layers]
        names = {name: released_name(name, fuser.sharers[number].kind_config) for name in group.state_dict()}
        for projector in projectors:
            _check_names(projector, set(names.values()))
        for name, theirs in names.items():
            tensors[prefix + name] = _stacked(projectors, theirs)
    return tensors


def _check_names(projector: ProjectorLayout, wanted: set[str]) -> None:
    missing, extra = sorted(wanted - projector.state.keys()), sorted(projector.state.keys() - wanted)
    if missing or extra:
        raise FuserFormatError(
            f"{projector.where} does not fit its constructor arguments: missing {missing[:3]}, superfluous "
            f"{extra[:3]}. Download the fuser again."
        )


def _stacked(projectors: Sequence[ProjectorLayout], name: str) -> Tensor:
    layers = [projector.state[name] for projector in projectors]
    if len({(tensor.shape, tensor.dtype) for tensor in layers}) != 1:
        shapes = sorted({f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in layers})
        raise FuserFormatError(f"{name} differs between the projectors of one fuser: {', '.join(shapes)}.")
    return stack_layers(layers)

"""The description of a fuser of the paper's authors, from its files."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerAlignment, LayerMap
from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.description import FuserDescription, ModelReference, TrainingRecord
from c2c_lightning.export.json_file import read_json
from c2c_lightning.export.released.projector_files import ReleasedSharer
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.config import FuserConfig, SharerKind
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry

logger = logging.getLogger(__name__)

SCHEDULES = "gate_schedules"
"""Entry of `TrainingRecord.settings`: the gate settings of each sharer's training."""


def describe_released(parts: Sequence[ReleasedSharer], receiver: str, sharers: Sequence[str]) -> FuserDescription:
    """The description of a converted fuser, from the released sharers and the names of the models."""
    written = [{n: projector.geometries()[0] for n, projector in part.projectors.items()} for part in parts]
    receiver_geometry = _geometry(receiver, written)
    references = []
    for name, part in zip(sharers, parts, strict=True):
        read = {part.sources[n]: projector.geometries()[1] for n, projector in part.projectors.items()}
        references.append(ModelReference(name, _geometry(name, [read])))
    depths = [reference.geometry.num_layers for reference in references]
    maps = [[part.sources.get(n) for n in range(receiver_geometry.num_layers)] for part in parts]
    config = _with_maps(_config(parts), maps, receiver_geometry.num_layers, depths)
    config = replace(config, token_alignment=_token_alignment(parts))
    return FuserDescription(config, ModelReference(receiver, receiver_geometry), tuple(references), _record(parts))


def _config(parts: Sequence[ReleasedSharer]) -> FuserConfig:
    """Kinds and settings of all sharers, and the gate schedule of the first, which only matters in training."""
    kinds = [_kind(part) for part in parts]
    kind, settings = kinds[0]
    values = asdict(settings)
    shared = {known.name for known in fields(FuserConfig)} & values.keys()
    common = {name: values.pop(name) for name in shared}
    config = FuserConfig(kind=kind, complex=ComplexConfig(**values), **common, **_schedule(parts[0]))
    if all(other == kinds[0] for other in kinds):
        return config
    return replace(config, sharer_kinds=[SharerKind(kind, asdict(settings)) for kind, settings in kinds])


def _schedule(part: ReleasedSharer) -> dict[str, Any]:
    return next(iter(part.projectors.values())).schedule


def _record(parts: Sequence[ReleasedSharer]) -> TrainingRecord | None:
    """The gate schedules where they differ, for the way back: a `FuserConfig` has one for all sharers."""
    schedules = [_schedule(part) for part in parts]
    if all(schedule == schedules[0] for schedule in schedules):
        return None
    logger.warning("the inputs were trained with different gate schedules: further training follows %s", schedules[0])
    return TrainingRecord(settings={SCHEDULES: schedules})


def _kind(part: ReleasedSharer) -> tuple[str, Any]:
    """Fuser kind and settings, which all projectors of a sharer have in common."""
    found = []
    for projector in part.projectors.values():
        if (pair := (projector.kind, projector.kind_config)) not in found:
            found.append(pair)
    if len(found) != 1:
        raise FuserFormatError(f"the projectors of {part.folder} are of {len(found)} kinds or sizes, not one fuser.")
    return found[0]


def _geometry(model: str, known: Sequence[dict[int, LayerGeometry]]) -> KVGeometry:
    """Shapes of all layers of a model, from those of the projectors.

    A layer without a projector has the shape of the others. The number of layers is that of the model's config
    where it is a local folder; else the last layer is the last one that is fused, as in every terminal or depth map.
    """
    shapes: dict[int, LayerGeometry] = {}
    for layers in known:
        for layer, shape in layers.items():
            if shapes.setdefault(layer, shape) != shape:
                raise FuserFormatError(f"layer {layer} of {model} has the shape {shapes[layer]} and the shape {shape}.")
    usual = next(iter(shapes.values()))
    path = Path(model) / "config.json"
    config = read_json(path) if path.is_file() else {}
    depth = config.get("text_config", config).get("num_hidden_layers", max(shapes) + 1)
    if depth <= max(shapes):
        raise FuserFormatError(
            f"{model} has {depth} layers, but the fuser reads layer {max(shapes)}. It is not its model."
        )
    return KVGeometry(tuple(shapes.get(layer, usual) for layer in range(depth)))


def _with_maps(config: FuserConfig, maps: list[LayerMap], num_layers: int, depths: Sequence[int]) -> FuserConfig:
    """The configuration with these layer maps: as an alignment where one gives them, else explicit."""
    for name in get_args(LayerAlignment):
        if name in ALIGNMENTS and maps == [ALIGNMENTS[name](num_layers, depth) for depth in depths]:
            return replace(config, layer_alignment=name)
    explicit: list[list[int | None]] = [
        [-1 if source is None else source for source in layer_map] for layer_map in maps
    ]
    return replace(config, layer_map=explicit)


def _token_alignment(parts: Sequence[ReleasedSharer]) -> Any:
    """One strategy for all sharers; `auto` means `longest` for unlike tokenizers, so the two are compatible."""
    found = {part.token_alignment for part in parts}
    chosen = min(found - {"auto"}, default="auto") if found != {"auto", "longest"} else "auto"
    if len(found) > 1 and chosen != "auto":
        logger.warning("the inputs were trained with token alignments %s; %s is taken for all", sorted(found), chosen)
    if chosen not in ("auto", "first", "longest"):
        raise FuserFormatError(f"alignment_strategy is {chosen!r} in config.json, but must be `first` or `longest`.")
    return chosen

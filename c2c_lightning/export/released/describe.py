"""What a fuser of the paper's authors is, in our words: worked out from its files."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerAlignment, LayerMap
from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.description import FuserDescription, ModelReference
from c2c_lightning.export.released.projector_files import ReleasedSharer, read_json
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry

logger = logging.getLogger(__name__)


def describe_released(parts: Sequence[ReleasedSharer], receiver: str, sharers: Sequence[str]) -> FuserDescription:
    """The description of a converted fuser.

    Args:
        parts: what was read of each sharer.
        receiver: name of the receiver.
        sharers: name of each sharer.

    Raises:
        FuserFormatError: parts that do not belong together.
    """
    configs = {projector.config() for part in parts for projector in part.projectors.values()}
    if len(configs) != 1:
        raise FuserFormatError(f"the projectors are of {len(configs)} kinds or sizes, so they are not one fuser.")
    written = [{n: projector.geometries()[0] for n, projector in part.projectors.items()} for part in parts]
    receiver_geometry = _geometry(receiver, written)
    references = []
    for name, part in zip(sharers, parts, strict=True):
        read = {part.sources[n]: projector.geometries()[1] for n, projector in part.projectors.items()}
        references.append(ModelReference(name, _geometry(name, [read])))
    depths = [reference.geometry.num_layers for reference in references]
    maps = [[part.sources.get(n) for n in range(receiver_geometry.num_layers)] for part in parts]
    config = _with_maps(configs.pop(), maps, receiver_geometry.num_layers, depths)
    config = replace(config, token_alignment=_token_alignment(parts))
    return FuserDescription(config, ModelReference(receiver, receiver_geometry), tuple(references))


def _geometry(model: str, known: Sequence[dict[int, LayerGeometry]]) -> KVGeometry:
    """Shapes of all layers of a model, from those that projectors know.

    A layer that no projector knows has the shape of the others. How many there are is asked of the model's own config
    where it is a local folder; else it ends with the last one known, as every terminal or depth map does.
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
    """The configuration that gives these layer maps: by name where a rule gives them, else explicitly."""
    for name in get_args(LayerAlignment):
        if maps == [ALIGNMENTS[name](num_layers, depth) for depth in depths]:
            return replace(config, layer_alignment=name)
    explicit = [[-1 if source is None else source for source in layer_map] for layer_map in maps]
    return replace(config, layer_map=explicit)


def _token_alignment(parts: Sequence[ReleasedSharer]) -> Any:
    """One strategy for all sharers; `auto` leaves tokenizers that agree alone, so it goes with `longest`."""
    found = {part.token_alignment for part in parts}
    chosen = min(found - {"auto"}, default="auto") if found != {"auto", "longest"} else "auto"
    if len(found) > 1 and chosen != "auto":
        logger.warning("the inputs were trained with token alignments %s; %s is taken for all", sorted(found), chosen)
    if chosen not in ("auto", "first", "longest"):
        raise FuserFormatError(f"alignment_strategy is {chosen!r} in config.json, but must be `first` or `longest`.")
    return chosen

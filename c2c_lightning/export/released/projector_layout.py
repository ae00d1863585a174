"""How the authors' projectors are laid out: their constructor arguments and tensor names, and ours.

Theirs is one module for each receiver layer, keys and values together; ours stacks the layers of one shape, keys and
values apart. The same numbers, so every translation is exact in both directions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.export.released.complex_layout import CLASS_NAME as COMPLEX
from c2c_lightning.export.released.complex_layout import (
    complex_config,
    complex_init_args,
    complex_name,
    complex_schedule,
)
from c2c_lightning.fuser.c2c_complex_config import ComplexKindConfig
from c2c_lightning.fuser.c2c_kind import C2CConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.geometry import LayerGeometry

# (head weighting, gates, receiver entries) of `AblationProjector`, which stops at level 4.
_ABLATION_PARTS: dict[tuple[bool, bool, bool], str] = {
    (True, True, True): "c2c",
    (False, True, True): "no_weights",
    (False, False, True): "fuse",
    (False, False, False): "project",
    (True, False, True): "no_gates",
}
RELEASED_KINDS = {*_ABLATION_PARTS.values(), "c2c_c"}
"""Fuser kinds that the authors' layout can express."""

_ABLATION_LEVELS: dict[int, str] = {0: "c2c", 1: "no_weights", 2: "fuse", 3: "project", 4: "no_gates"}

_SIZES = ("hidden_dim", "intermediate_dim", "num_layers", "dropout")
_TEMPERATURES = ("initial_temperature", "final_temperature", "anneal_steps")
_SHAPE = ("source_dim", "target_dim", "source_num_heads", "target_num_heads")
# What else a constructor takes without changing what a trained projector computes.
_INERT = ("dtype", "zero_init")
_ABLATION = ("ablation_level", "use_scalar_weights", "use_gates", "use_target")

# Prefix of our tensor names within keys or values, and theirs after `key_` or `value_`.
_PREFIXES = (
    ("features.input.", "in."),
    ("features.block.", "mlp1.blocks.0."),
    ("weighting.block.", "scalar_mlp2.blocks.0."),
    ("weighting.output.", "scalar_head."),
    ("projector.blocks.", "proj_mlp2.blocks."),
    ("projector.output.", "proj_out."),
    ("gate.logit", "gate_logit"),
)
_SIDES = {"keys": "key_", "values": "value_"}


@dataclass(frozen=True)
class ProjectorLayout:
    """One projector file of the authors: its path, class, constructor arguments and state dict."""

    where: str
    class_name: str
    init_args: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """Our name for its class and ablation level."""
        known = {*_SHAPE, *_SIZES, *_TEMPERATURES, *_INERT}
        if self.class_name == COMPLEX:
            return "c2c_c"
        if self.class_name == "AblationProjector":
            known |= {*_ABLATION}
        elif self.class_name != "C2CProjector":
            raise FuserFormatError(
                f"{self.where} is a {self.class_name}; only C2CProjector, AblationProjector and {COMPLEX} can be "
                "converted."
            )
        if unknown := sorted(self.init_args.keys() - known):
            raise FuserFormatError(
                f"{self.where}: {self.class_name} with unknown arguments {unknown} cannot be converted."
            )
        return self._ablation_kind()

    def _ablation_kind(self) -> str:
        level = self.init_args.get("ablation_level", 0)
        # At level 0 their class looks at its switches.
        if level in _ABLATION_LEVELS and level > 0:
            return _ABLATION_LEVELS[level]
        parts = tuple(bool(self.init_args.get(name, True)) for name in _ABLATION[1:])
        if parts not in _ABLATION_PARTS:
            raise FuserFormatError(
                f"{self.where}: the ablation {dict(zip(_ABLATION[1:], parts, strict=True))} is not known."
            )
        return _ABLATION_PARTS[parts]

    @property
    def kind_config(self) -> C2CConfig | ComplexKindConfig:
        """The settings of its kind; the authors' defaults where the file leaves them out."""
        if self.class_name == COMPLEX:
            return complex_config(self._choices, self.where)
        return C2CConfig(**{name: self.init_args[name] for name in _SIZES if name in self.init_args})

    @property
    def schedule(self) -> dict[str, Any]:
        """Gate settings of its training, as fields of `FuserConfig`."""
        if self.class_name == COMPLEX:
            return complex_schedule(self._choices)
        return {name: self.init_args[name] for name in _TEMPERATURES if name in self.init_args}

    @property
    def _choices(self) -> dict[str, Any]:
        return {name: value for name, value in self.init_args.items() if name not in (*_SHAPE, "dtype")}

    def geometries(self) -> tuple[LayerGeometry, LayerGeometry]:
        """Shapes of the receiver layer and of the sharer layer."""
        args = {"source_num_heads": 1, "target_num_heads": 1, **self.init_args}
        sharer = LayerGeometry(args["source_num_heads"], args["source_dim"], args["source_dim"])
        return LayerGeometry(args["target_num_heads"], args["target_dim"], args["target_dim"]), sharer


def projector_json(
    kind: str,
    settings: C2CConfig | ComplexKindConfig,
    config: FuserConfig,
    shapes: tuple[LayerGeometry, LayerGeometry],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The contents of `projector_{i}.json`; `shapes` are those of the receiver layer and of the sharer layer."""
    receiver, sharer = shapes
    init_args: dict[str, Any] = {
        "source_dim": sharer.key_dim,
        "target_dim": receiver.key_dim,
        "source_num_heads": sharer.kv_heads,
        "target_num_heads": receiver.kv_heads,
        **{name: getattr(config, name) for name in _TEMPERATURES},
        "dtype": {"__type__": "torch.dtype", "value": str(dtype).removeprefix("torch.")},
    }
    if isinstance(settings, ComplexKindConfig):
        return {"class": COMPLEX, "init_args": {**init_args, **complex_init_args(settings, config)}}
    init_args |= {name: getattr(settings, name) for name in _SIZES}
    if kind == "c2c":
        return {"class": "C2CProjector", "init_args": init_args}
    level = next(level for level, known in _ABLATION_LEVELS.items() if known == kind)
    return {"class": "AblationProjector", "init_args": {**init_args, "ablation_level": level}}


def released_name(name: str, settings: C2CConfig | ComplexKindConfig) -> str:
    """The authors' name of a tensor of a stack, such as `keys.features.input.weight`."""
    if isinstance(settings, ComplexKindConfig):
        return complex_name(name, settings)
    side, rest = name.split(".", 1)
    if rest == "gate.temperature":
        return "gate_temperature"
    for ours, theirs in _PREFIXES:
        if rest.startswith(ours):
            return _SIDES[side] + theirs + rest.removeprefix(ours)
    raise KeyError(name)


def stack_layers(layers: list[Tensor]) -> Tensor:
    """The authors' tensors of several layers as one of ours: scalars, vectors, or (out, in) matrices."""
    if layers[0].ndim == 0:
        return torch.stack(layers)
    if layers[0].ndim == 1:
        return torch.stack(layers)[:, None]
    # Their `Linear` keeps (out, in), our batched product multiplies by (in, out).
    return torch.stack([matrix.T for matrix in layers])


def unstack_layer(name: str, tensor: Tensor, layer: int) -> Tensor:
    """One layer of one of our tensors as the authors have it; the inverse of `stack_layers`."""
    if tensor.ndim == 1:
        return tensor[layer].clone()
    is_vector = name.endswith((".bias", ".norm.weight"))
    return (tensor[layer, 0] if is_vector else tensor[layer].T).contiguous().clone()

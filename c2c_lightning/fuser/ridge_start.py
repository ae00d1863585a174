"""The fuser kind `ridge_start`: a ridge map in closed form as the start of training, and another kind on top of it.

    fused = ridge map [sharer entries of the k source layers] + scale * F(receiver, sharer)

`scale`, one number per layer for keys and one for values, starts at 0, so that training begins with the map; the map is
trained too (after k2-cascade's projector: ridge plus a residual whose last map starts at 0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, find_kind, kind_name, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.ridge import RidgeConfig, RidgeKind
from c2c_lightning.fuser.wrapping_kind import WrappingKind
from c2c_lightning.kv.geometry import LayerGeometry


@dataclass(frozen=True)
class RidgeStartConfig:
    """The two parts.

    Attributes:
        ridge: settings of the map.
        on_top: name of the kind on top.
        settings: its configuration.
    """

    ridge: RidgeConfig
    on_top: str
    settings: Any


@register_kind("ridge_start")
class RidgeStartKind(WrappingKind):
    """A ridge map and another kind, whose gates are those of the whole."""

    config_class = RidgeStartConfig

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: RidgeStartConfig,
        new_gate: NewGate,
    ) -> None:
        """Build both parts for `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        self.ridge = RidgeKind(pairs, receiver, sharer, config.ridge, new_gate)
        self.inner: FuserKind = find_kind(config.on_top)(pairs, receiver, sharer, config.settings, new_gate)  # type: ignore[call-arg]
        self.key_scale, self.value_scale = (nn.Parameter(torch.zeros(len(pairs), 1, 1, 1)) for _ in range(2))

    @classmethod
    def make_config(cls, options: Mapping[str, Any], shared: Mapping[str, Any]) -> RidgeStartConfig:
        """See `FuserKind.make_config`; `options` are `on_top` (default `low_rank`), its settings and the map's."""
        inner = find_kind(options.get("on_top", "low_rank"))
        if inner.needs_rotary or issubclass(inner, RidgeStartKind | RidgeKind):
            raise FuserConfigError(
                f"kind `ridge_start` cannot have {kind_name(inner)!r} on top. For position-free keys use `rotary_free` "
                "with `options.kind: ridge_start`."
            )
        of_map = {field.name for field in fields(RidgeConfig)} - {"trainable"}
        ridge = {name: value for name, value in options.items() if name in of_map}
        own = {name: value for name, value in options.items() if name not in {*of_map, "on_top"}}
        config = RidgeKind.make_config({**ridge, "trainable": True}, {})
        return RidgeStartConfig(config, kind_name(inner), inner.make_config(own, shared))

    @classmethod
    def used_kinds(cls, config: RidgeStartConfig) -> list[type[FuserKind]]:
        """See `FuserKind.used_kinds`."""
        return [cls, *find_kind(config.on_top).used_kinds(config.settings)]

    @property
    def sharer_layers(self) -> list[int]:
        """For each layer the one that the kind on top reads, then the sources of the map."""
        layers = []
        for index in range(len(self.receiver_layers)):
            layers += [*self.inner.sources_of(index), *self.ridge.sources_of(index)]
        return layers

    @sharer_layers.setter
    def sharer_layers(self, layers: list[int]) -> None:
        """Set with the parts, which do not exist yet when `FuserKind` sets its own."""

    @property
    def closed_form_tokens(self) -> int:
        """See `FuserKind.closed_form_tokens`."""
        return self.ridge.closed_form_tokens

    def fit_closed_form(self, receiver: PackedKV, sharer: PackedKV, candidates: Sequence[int]) -> None:
        """See `FuserKind.fit_closed_form`."""
        self.ridge.fit_closed_form(receiver, sharer, candidates)

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`."""
        sides = [part.unflatten(0, (len(receiver.keys), -1)) for part in (sharer.keys, sharer.values)]
        aligned, sources = (PackedKV(*(side[:, where].flatten(0, 1) for side in sides)) for where in _PARTS)
        base, added = self.ridge.residual(receiver, sources, noise), self.inner.residual(receiver, aligned, noise)
        return PackedKV(base.keys + self.key_scale * added.keys, base.values + self.value_scale * added.values)

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: RidgeStartConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        one = RidgeKind.linear_maps(receiver, sharer, config.ridge)
        other = find_kind(config.on_top).linear_maps(receiver, sharer, config.settings)
        return LinearMaps(one.first + other.first, one.other + other.other)


_PARTS = (slice(0, 1), slice(1, None))
"""Of the sharer layers that one layer reads: that of the kind on top, the sources of the map."""

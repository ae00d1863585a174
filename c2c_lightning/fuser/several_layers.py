"""The fuser kind `several_layers`: another kind that reads k sharer layers for each receiver layer, side by side.

The layers are those that predict the receiver's entries best: before it trains, `lightning fit` compares linear maps on
the first training rows, as for `ridge`. With k = 1 this is `layer_alignment: correlated`.

Axes: L layers of the stack, k source layers, F tokens, S candidate layers of the sharer, H KV heads, D head width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, find_kind, kind_name, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.ridge import take_saved_sources
from c2c_lightning.fuser.ridge_regression import best_sources, probe_scores
from c2c_lightning.fuser.wrapping_kind import WrappingKind
from c2c_lightning.kv.geometry import LayerGeometry

REGULARISATION = 0.01


@dataclass(frozen=True)
class SeveralLayersConfig:
    """Settings.

    Attributes:
        kind: name of the kind within.
        settings: its configuration.
        num_sources: sharer layers k of each receiver layer.
        num_tokens: tokens of paired caches on which layers are compared.
    """

    kind: str
    settings: Any
    num_sources: int = 2
    num_tokens: int = 4096

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("num_sources",), 1, 1000)
        check_range(self, ("num_tokens",), 64, 10**8)


@register_kind("several_layers")
class SeveralLayersKind(WrappingKind):
    """A kind whose sharer layer has the heads of k layers.

    Attributes:
        sources: (L, k), the source layers, as numbers because fuser files hold floating-point tensors only. Before the
            comparison all k are the layer of the layer map.
    """

    config_class = SeveralLayersConfig
    sources: Tensor

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: SeveralLayersConfig,
        new_gate: NewGate,
    ) -> None:
        """Build the kind within for a sharer of k times as many heads."""
        super().__init__(pairs)
        self.config, wide = config, _side_by_side(sharer, config.num_sources)
        self.inner: FuserKind = find_kind(config.kind)(pairs, receiver, wide, config.settings, new_gate)  # type: ignore[call-arg]
        first = [[float(m)] * config.num_sources for _, m in pairs]
        self.register_buffer("sources", torch.tensor(first, device=next(self.inner.parameters()).device))
        self.register_load_state_dict_post_hook(take_saved_sources)  # type: ignore[no-untyped-call]
        self.take_sources([m for _, m in pairs for _ in range(config.num_sources)])

    @classmethod
    def make_config(cls, options: Mapping[str, Any], shared: Mapping[str, Any]) -> SeveralLayersConfig:
        """See `FuserKind.make_config`; `options`: `kind` (default `c2c`), `num_sources`, `num_tokens`, its own."""
        inner = find_kind(options.get("kind", "c2c"))
        if inner.needs_rotary or not inner.is_pointwise or _chooses(inner):
            raise FuserConfigError(
                f"kind `several_layers` cannot have {kind_name(inner)!r} within. Use `c2c`, one of its ablations, or "
                "`low_rank`."
            )
        mine = {name: options[name] for name in ("num_sources", "num_tokens") if name in options}
        own = {name: value for name, value in options.items() if name not in {*mine, "kind"}}
        return SeveralLayersConfig(kind_name(inner), inner.make_config(own, shared), **mine)

    @classmethod
    def used_kinds(cls, config: SeveralLayersConfig) -> list[type[FuserKind]]:
        """See `FuserKind.used_kinds`."""
        return [cls, *find_kind(config.kind).used_kinds(config.settings)]

    @property
    def closed_form_tokens(self) -> int:
        """See `FuserKind.closed_form_tokens`: the source layers are found, the weights are trained."""
        return self.config.num_tokens

    def take_sources(self, layers: Sequence[int]) -> None:
        """Read other sharer layers: k for each layer of the stack."""
        self.sharer_layers = list(layers)

    @torch.no_grad()
    def fit_closed_form(self, receiver: PackedKV, sharer: PackedKV, candidates: Sequence[int]) -> None:
        """Choose the source layers by how well their values predict the receiver's; keys depend on positions.

        Args:
            receiver: the receiver's entries, (L, F, H, D).
            sharer: the entries of the candidates, (S, F, H, D).
            candidates: their layer numbers.

        Raises:
            FuserConfigError: fewer candidates than `num_sources`, or too few tokens.
        """
        tokens = receiver.values.shape[1]
        if tokens < 64:
            raise FuserConfigError(f"layers cannot be compared on {tokens} tokens. Give more rows of training data.")
        scores = probe_scores(sharer.values.flatten(2), receiver.values.flatten(2), REGULARISATION)
        chosen = best_sources(scores, self.config.num_sources)
        layers = torch.tensor(list(candidates))[chosen.cpu()]
        self.sources.copy_(layers)
        self.take_sources(layers.flatten().tolist())

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`."""
        return self.inner.residual(receiver, PackedKV(self._wide(sharer.keys), self._wide(sharer.values)), noise)

    def _wide(self, entries: Float[Tensor, "Lk F H D"]) -> Float[Tensor, "L F kH D"]:
        """The heads of all source layers of one token side by side."""
        heads: Tensor = entries.unflatten(0, (-1, self.config.num_sources)).transpose(1, 2).flatten(2, 3)
        return heads

    def compiled_parts(self) -> list[nn.Module]:
        """See `FuserKind.compiled_parts`."""
        return self.inner.compiled_parts()

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: SeveralLayersConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        wide = _side_by_side(sharer, config.num_sources)
        return find_kind(config.kind).linear_maps(receiver, wide, config.settings)


def _side_by_side(sharer: LayerGeometry, count: int) -> LayerGeometry:
    return replace(sharer, kv_heads=count * sharer.kv_heads)


def _chooses(kind: type[FuserKind]) -> bool:
    """Whether a kind chooses source layers itself."""
    return kind.fit_closed_form is not FuserKind.fit_closed_form

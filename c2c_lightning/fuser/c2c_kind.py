"""The C2C fuser (paper section 3.3.2, Eq. 3) and its ablations (paper table 8), for a stack of receiver layers.

For keys, and for values alike:

    hidden = features([sharer, receiver])
    fused = receiver + gate * weighting(hidden) * projector(hidden)

Axes: L layers of the stack, F fused tokens, H KV heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.gate import Gate, OpenGate, draw_uniform
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.residual_mlp import ResidualMLP
from c2c_lightning.ops.stacked_linear import NarrowLinear, StackedLinear

MAX_WIDTH, MAX_DEPTH = 2**20, 1000

Heads = tuple[int, int]
"""KV heads and head width."""

Hidden = Float[Tensor, "layers tokens hidden"]
Entries = Float[Tensor, "layers tokens heads width"]


@dataclass(frozen=True)
class C2CConfig:
    """Sizes of a C2C fuser; the defaults are those of the released code.

    Attributes:
        hidden_dim: width.
        intermediate_dim: inner width of the residual blocks.
        num_layers: depth, at least 3: shared block, projection blocks, output projection.
        dropout: dropout probability in each block.
    """

    hidden_dim: int = 1024
    intermediate_dim: int = 1024
    num_layers: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        if self.num_layers < 3:
            raise FuserConfigError(f"num_layers is {self.num_layers}, but a fuser of this kind needs at least 3.")
        check_range(self, ("hidden_dim", "intermediate_dim"), 1, MAX_WIDTH)
        check_range(self, ("num_layers",), 3, MAX_DEPTH)
        if not 0 <= self.dropout < 1:
            raise FuserConfigError(f"dropout is {self.dropout}, but must be in [0, 1).")


class FeatureFusion(nn.Module):
    """The input map and the block that projector and head weighting share."""

    def __init__(self, num_layers: int, in_dim: int, config: C2CConfig) -> None:
        """Build it for `num_layers` receiver layers and inputs of width `in_dim`."""
        super().__init__()
        self.input = StackedLinear(num_layers, in_dim, config.hidden_dim)
        self.block = ResidualMLP(num_layers, config.hidden_dim, config.intermediate_dim, config.dropout)

    def forward(self, *entries: Float[Tensor, "layers tokens _"]) -> Hidden:
        """Shared features of the concatenated entries."""
        return self.block.overwrite(self.input.of_parts(*entries))


class Projector(nn.Module):
    """Projection of the shared features to the receiver's heads."""

    def __init__(self, num_layers: int, heads: Heads, config: C2CConfig) -> None:
        """Build it for `num_layers` receiver layers."""
        super().__init__()
        sizes = (num_layers, config.hidden_dim, config.intermediate_dim, config.dropout)
        self.blocks = nn.Sequential(*(ResidualMLP(*sizes) for _ in range(config.num_layers - 2)))
        self.output = StackedLinear(num_layers, config.hidden_dim, heads[0] * heads[1])
        self.heads = heads

    def forward(self, hidden: Hidden) -> Entries:
        """Projected entries; in inference the features are overwritten."""
        for block in self.blocks:
            hidden = block.overwrite(hidden)  # type: ignore[operator]
        projected: Tensor = self.output(hidden).unflatten(-1, self.heads)
        return projected


class HeadWeighting(nn.Module):
    """Dynamic head weighting: one weight in (0, 1) per token and KV head."""

    def __init__(self, num_layers: int, heads: Heads, config: C2CConfig) -> None:
        """Build it for `num_layers` receiver layers."""
        super().__init__()
        self.block = ResidualMLP(num_layers, config.hidden_dim, config.hidden_dim, config.dropout)
        self.output = NarrowLinear(num_layers, config.hidden_dim, heads[0])

    def forward(self, hidden: Hidden) -> Float[Tensor, "layers tokens heads 1"]:
        """The weights."""
        return torch.sigmoid(self.output(self.block(hidden))).unsqueeze(-1)


class UnitWeighting(nn.Module):
    """Weights of 1 (ablations)."""

    def __init__(self, num_layers: int, heads: Heads, config: C2CConfig) -> None:
        """Take the arguments of `HeadWeighting`."""
        super().__init__()

    def forward(self, hidden: Hidden) -> Float[Tensor, ""]:
        """1."""
        return hidden.new_ones(())


class LayerFuser(nn.Module):
    """F of Eq. 3 of the keys, or of the values: `gate * weighting * projection`."""

    reads_receiver = True

    def __init__(self, features: FeatureFusion, projector: Projector, weighting: nn.Module, gate: nn.Module) -> None:
        """Compose it from its parts."""
        super().__init__()
        self.features, self.projector, self.weighting, self.gate = features, projector, weighting, gate

    def forward(
        self,
        receiver: Float[Tensor, "layers tokens heads width"],
        sharer: Float[Tensor, "layers tokens sharer_heads sharer_width"],
        noise: Tensor | None = None,
    ) -> Float[Tensor, "layers tokens heads width"]:
        """Residual of the receiver's entries; zero where the gate is closed.

        Args:
            receiver: the receiver's entries.
            sharer: the sharer's entry that each of them is fused with.
            noise: (L, F, H, 1), gate noise in training; None for hard gates.
        """
        hidden = self.features(sharer.flatten(2), receiver.flatten(2))
        weights = self.gate(noise) * self.weighting(hidden)  # first: the projector may overwrite the features
        residual: Tensor = weights * self.projector(hidden)
        return residual


class SharerOnlyFuser(LayerFuser):
    """The projected sharer replaces the receiver's entries (paper table 8, "Project")."""

    reads_receiver = False

    def forward(
        self,
        receiver: Float[Tensor, "layers tokens heads width"],
        sharer: Float[Tensor, "layers tokens sharer_heads sharer_width"],
        noise: Tensor | None = None,
    ) -> Float[Tensor, "layers tokens heads width"]:
        """As `LayerFuser.forward`; the receiver's entries are subtracted, not read."""
        projected: Tensor = self.projector(self.features(sharer.flatten(2)))
        return projected - receiver


@register_kind("c2c")
class C2CKind(FuserKind):
    """C2C: keys and values have separate fusers."""

    config_class = C2CConfig
    fuser_class: type[LayerFuser] = LayerFuser
    weighting_class: type[HeadWeighting | UnitWeighting] = HeadWeighting
    has_gates = True

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: C2CConfig,
        new_gate: NewGate,
    ) -> None:
        """Build the fusers of keys and of values for `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        self.kv_heads = receiver.kv_heads
        self.keys, self.values = (
            self._layer_fuser(len(pairs), mine, theirs, config, new_gate) for mine, theirs in _sides(receiver, sharer)
        )

    def _layer_fuser(
        self, num_layers: int, receiver: Heads, sharer: Heads, config: C2CConfig, new_gate: NewGate
    ) -> LayerFuser:
        return self.fuser_class(
            FeatureFusion(num_layers, self._in_dim(receiver, sharer), config),
            Projector(num_layers, receiver, config),
            self.weighting_class(num_layers, receiver, config),
            new_gate(num_layers) if self.has_gates else OpenGate(),
        )

    @classmethod
    def _in_dim(cls, receiver: Heads, sharer: Heads) -> int:
        return sharer[0] * sharer[1] + (receiver[0] * receiver[1] if cls.fuser_class.reads_receiver else 0)

    @property
    def gates(self) -> list[Gate]:
        """One per layer for keys and one for values; none for ablations without gates."""
        return [part.gate for part in (self.keys, self.values) if isinstance(part.gate, Gate)]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`."""
        keys = self.keys(receiver.keys, sharer.keys, noise[0])
        return PackedKV(keys, self.values(receiver.values, sharer.values, noise[1]))

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One number per row, KV head and token, separately for keys and values."""
        draws = draw_uniform(num_layers, batch, self.kv_heads, tokens, self.gates[0])
        keys, values = draws.unsqueeze(-1).unbind(1)
        return keys, values

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: C2CConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        hidden, inner, maps = config.hidden_dim, config.intermediate_dim, LinearMaps()
        for mine, theirs in _sides(receiver, sharer):
            maps.first.append((cls._in_dim(mine, theirs), hidden))
            # The shared block and those of the projector, then its output.
            maps.other += [(hidden, inner), (inner, hidden)] * (config.num_layers - 1)
            maps.other.append((hidden, mine[0] * mine[1]))
            if cls.weighting_class is HeadWeighting:
                maps.other += [(hidden, hidden), (hidden, hidden), (hidden, mine[0])]
        return maps


@register_kind("no_weights")
class NoWeightsKind(C2CKind):
    """Ablation: gates, but no head weighting."""

    weighting_class = UnitWeighting


@register_kind("fuse")
class FuseKind(NoWeightsKind):
    """Ablation: the projection is added, without head weighting and gates."""

    has_gates = False


@register_kind("project")
class ProjectKind(FuseKind):
    """Ablation: the projected sharer replaces the receiver's entries."""

    fuser_class = SharerOnlyFuser
    reads_receiver = False


@register_kind("no_gates")
class NoGatesKind(C2CKind):
    """Ablation: head weighting, but no gates."""

    has_gates = False


def _sides(receiver: LayerGeometry, sharer: LayerGeometry) -> list[tuple[Heads, Heads]]:
    """Heads of the receiver and of the sharer: for keys, then for values."""
    mine, theirs = receiver.kv_heads, sharer.kv_heads
    return [
        ((mine, receiver.key_dim), (theirs, sharer.key_dim)),
        ((mine, receiver.value_dim), (theirs, sharer.value_dim)),
    ]

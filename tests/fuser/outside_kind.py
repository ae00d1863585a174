"""A fuser kind that is defined outside of the package: a low-rank residual with one gate per layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from c2c_lightning.fuser.gate import Gate
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.stacked_linear import StackedLinear
from c2c_lightning.ops.stacked_norm import StackedRMSNorm


@dataclass(frozen=True)
class LowRankConfig:
    """Settings of the kind."""

    rank: int = 4


@register_kind("tests_low_rank")
class LowRankKind(FuserKind):
    """`gate * up(norm(down(sharer)))` for keys and for values."""

    config_class = LowRankConfig

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: LowRankConfig,
        new_gate: NewGate,
    ) -> None:
        super().__init__(pairs)
        layers, self.receiver = len(pairs), receiver
        maps = self.linear_maps(receiver, sharer, config)
        self.down = nn.ModuleList(StackedLinear(layers, *shape) for shape in maps.first)
        self.norm = nn.ModuleList(StackedRMSNorm(layers, config.rank) for _ in "kv")
        self.up = nn.ModuleList(StackedLinear(layers, *shape) for shape in maps.other)
        self.gate = new_gate(layers)

    @property
    def gates(self) -> list[Gate]:
        return [self.gate, self.gate]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        sides = ((receiver.keys, sharer.keys), (receiver.values, sharer.values))
        added = [
            self.gate(noise[n]) * self.up[n](self.norm[n](self.down[n](theirs.flatten(2)))).view_as(mine)
            for n, (mine, theirs) in enumerate(sides)
        ]
        return PackedKV(*added)

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        keys, values = torch.rand(2, num_layers, batch, self.receiver.kv_heads, tokens, 1)
        return keys, values

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: LowRankConfig) -> LinearMaps:
        maps = LinearMaps()
        for mine, theirs in ((receiver.key_dim, sharer.key_dim), (receiver.value_dim, sharer.value_dim)):
            maps.first.append((sharer.kv_heads * theirs, config.rank))
            maps.other.append((config.rank, receiver.kv_heads * mine))
        return maps

"""The fuser kind `low_rank`: keys and values through one narrow latent (Latent Cache Flow, arXiv 2605.22863).

    latent = blocks(down([sharer keys, sharer values, receiver keys, receiver values]))
    fused = receiver + gate * weight(latent) * up(half of the latent)

Keys use the first half of the latent and values the second; the head weights are computed from the whole latent.
Axes: L layers of the stack, F fused tokens, H KV heads, D head width, R latent width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.gate import Gate, draw_uniform
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.residual_mlp import ResidualMLP
from c2c_lightning.ops.stacked_linear import NarrowLinear, StackedLinear

MAX_RANK, MAX_BLOCKS, MAX_EXPANSION = 2**16, 1000, 64


@dataclass(frozen=True)
class LowRankConfig:
    """Sizes of a low-rank fuser; the defaults are those of the smaller published model (19.4 M for the paper's pair).

    Attributes:
        rank: width R of the latent, even. Published: 64 to 512.
        num_blocks: residual blocks on the latent.
        expansion: inner width of a block as a multiple of `rank`.
        dropout: dropout probability in each block.
    """

    rank: int = 128
    num_blocks: int = 2
    expansion: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("rank",), 2, MAX_RANK)
        check_range(self, ("num_blocks",), 0, MAX_BLOCKS)
        check_range(self, ("expansion",), 1, MAX_EXPANSION)
        if self.rank % 2:
            raise FuserConfigError(f"rank is {self.rank}, but must be even: keys and values use half of it each.")
        if not 0 <= self.dropout < 1:
            raise FuserConfigError(f"dropout is {self.dropout}, but must be in [0, 1).")


@register_kind("low_rank")
class LowRankKind(FuserKind):
    """Keys and values share a down-projection, residual blocks and head weighting; each has an up-projection."""

    config_class = LowRankConfig

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: LowRankConfig,
        new_gate: NewGate,
    ) -> None:
        """Build the fusers of `pairs` of receiver and sharer layers.

        Raises:
            FuserConfigError: half the rank is wider than the receiver's keys or values of one token.
        """
        super().__init__(pairs)
        check_rank(config.rank, receiver)
        layers, heads, half = len(pairs), receiver.kv_heads, config.rank // 2
        self.kv_heads = heads
        self.down = StackedLinear(layers, receiver.token_width + sharer.token_width, config.rank)
        block = (layers, config.rank, config.expansion * config.rank, config.dropout)
        self.blocks = nn.Sequential(*(ResidualMLP(*block) for _ in range(config.num_blocks)))
        self.up_keys = StackedLinear(layers, half, heads * receiver.key_dim)
        self.up_values = StackedLinear(layers, half, heads * receiver.value_dim)
        self.weighting = NarrowLinear(layers, config.rank, 2 * heads)
        self.key_gate, self.value_gate = new_gate(layers), new_gate(layers)

    @property
    def gates(self) -> list[Gate]:
        """One per layer for keys and one for values."""
        return [self.key_gate, self.value_gate]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`."""
        entries = (*sharer.distinct, receiver.keys, receiver.values)
        latent = self.blocks(self.down(torch.cat([part.flatten(2) for part in entries], -1)))
        of_keys, of_values = latent.chunk(2, -1)
        # (L, F, 2 H) to (L, F, H, 1) for keys and for values
        key_weight, value_weight = torch.sigmoid(self.weighting(latent)).unsqueeze(-1).chunk(2, -2)
        keys = self.up_keys(of_keys).view_as(receiver.keys)
        values = self.up_values(of_values).view_as(receiver.values)
        return PackedKV(self.key_gate(noise[0]) * key_weight * keys, self.value_gate(noise[1]) * value_weight * values)

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One number per row, KV head and token, separately for keys and values."""
        draws = draw_uniform(num_layers, batch, self.kv_heads, tokens, self.key_gate)
        keys, values = draws.unsqueeze(-1).unbind(1)
        return keys, values

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: LowRankConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        rank, inner, heads = config.rank, config.expansion * config.rank, receiver.kv_heads
        other = [(rank, inner), (inner, rank)] * config.num_blocks
        other += [(rank // 2, heads * receiver.key_dim), (rank // 2, heads * receiver.value_dim), (rank, 2 * heads)]
        return LinearMaps([(receiver.token_width + sharer.token_width, rank)], other)


def check_rank(rank: int, receiver: LayerGeometry) -> None:
    """Refuse a latent whose half has more dimensions than the keys or the values of the receiver.

    Raises:
        FuserConfigError: with the largest possible rank.
    """
    width = receiver.kv_heads * min(receiver.key_dim, receiver.value_dim)
    if rank // 2 > width:
        raise FuserConfigError(
            f"rank is {rank}, but keys and values use half of it each, and the receiver's {receiver.kv_heads} KV heads "
            f"have {width} dimensions together. Set rank to at most {2 * width}."
        )

"""The fuser kind `memory`: a few slots summarise both caches, and each receiver position reads them (after XKV).

    slots = [attention(queries of the sharer, all sharer entries), attention(queries of the receiver, all receiver's)]
    memory = slots + self-attention(slots)
    fused = receiver + gate * up(attention(query of the position, memory))

Each slot pools the fused tokens of one span over all layers of the stack, so that a layer reads other layers and tokens
too. After XKV (arXiv 2608.20617, no code published): slots from both caches, a joint self-attended memory, position
queries. Here the layers are pooled in the same attention instead of by a learned layer map.

Axes: L layers of the stack, B batch, T tokens, F fused tokens, H KV heads, D head width, N slots, W memory width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError, FuserInputError
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.gate import Gate, draw_uniform
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.stacked_linear import StackedLinear
from c2c_lightning.ops.stacked_norm import EPS

MAX_WIDTH, MAX_SLOTS = 2**16, 2**12


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes of a memory fuser.

    Attributes:
        width: width W of slots, and of the entries that they pool.
        num_slots: slots that pool the sharer's cache, and as many that pool the receiver's.
        num_heads: attention heads, a divisor of `width`.
    """

    width: int = 64
    num_slots: int = 8
    num_heads: int = 4

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("width",), 1, MAX_WIDTH)
        check_range(self, ("num_slots",), 1, MAX_SLOTS)
        check_range(self, ("num_heads",), 1, self.width)
        if self.width % self.num_heads:
            raise FuserConfigError(
                f"num_heads is {self.num_heads}, but must divide width ({self.width}): each head has the same share."
            )


@register_kind("memory")
class MemoryKind(FuserKind):
    """Slots pool both caches over tokens and layers; self-attention joins them; each position reads them."""

    config_class = MemoryConfig
    is_pointwise = False

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: MemoryConfig,
        new_gate: NewGate,
    ) -> None:
        """Build the fuser of `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        layers, width = len(pairs), config.width
        self.num_heads, self.kv_heads = config.num_heads, receiver.kv_heads
        self.slots = nn.Parameter(torch.randn(2, config.num_slots, width))
        self.read_sharer = StackedLinear(layers, sharer.token_width, 2 * width)
        self.read_receiver = StackedLinear(layers, receiver.token_width, 3 * width)
        self.join = StackedLinear(1, width, 3 * width)
        self.up_keys = StackedLinear(layers, width, receiver.kv_heads * receiver.key_dim)
        self.up_values = StackedLinear(layers, width, receiver.kv_heads * receiver.value_dim)
        self.key_gate, self.value_gate = new_gate(layers), new_gate(layers)

    @property
    def gates(self) -> list[Gate]:
        """One per layer for keys and one for values."""
        return [self.key_gate, self.value_gate]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`.

        Raises:
            FuserInputError: entries whose places in the batch are not known.
        """
        if (places := receiver.places) is None:
            raise FuserInputError(
                "the fuser kind `memory` reads whole spans: call `forward`, or give `PackedKV.places`."
            )
        theirs = self.read_sharer(torch.cat([part.flatten(2) for part in sharer.distinct], -1))
        own = self.read_receiver(torch.cat([receiver.keys.flatten(2), receiver.values.flatten(2)], -1))
        # (L, F, 5 W) to (B, T L, W) each: all entries of a row side by side, of all layers
        padded = places.padded(torch.cat([theirs, own], -1)).flatten(1, 2).chunk(5, -1)
        is_entry = places.mask.repeat_interleave(len(own), 1)
        memory = self._memory(padded, is_entry)
        read = places.packed(self._attend(padded[4], memory, memory).unflatten(1, (-1, len(own))))
        keys, values = self.up_keys(read).view_as(receiver.keys), self.up_values(read).view_as(receiver.values)
        return PackedKV(self.key_gate(noise[0]) * keys, self.value_gate(noise[1]) * values)

    def _memory(
        self, padded: Sequence[Float[Tensor, "B TL W"]], is_entry: Bool[Tensor, "B TL"]
    ) -> Float[Tensor, "B two_N W"]:
        """Slots of the sharer's cache and of the receiver's, joined by self-attention."""
        # A finite bias: a row without fused tokens has no entry, and a softmax over nothing is NaN.
        bias = padded[0].new_zeros(is_entry.shape).masked_fill(~is_entry, torch.finfo(padded[0].dtype).min)
        queries = self.slots.to(padded[0].dtype).unsqueeze(1).expand(-1, len(bias), -1, -1)
        slots = torch.cat(
            [self._attend(queries[n], padded[2 * n], padded[2 * n + 1], bias[:, None, None]) for n in (0, 1)], 1
        )
        normed = F.rms_norm(slots, slots.shape[-1:], eps=EPS).flatten(0, 1).unsqueeze(0)
        joined: Tensor = self.join(normed)[0].unflatten(0, slots.shape[:2])
        return slots + self._attend(*joined.chunk(3, -1))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Float[Tensor, "B Q W"]:
        """Attention with several heads: queries (B, Q, W) over keys and values (B, K, W)."""
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One number per row, KV head and token, separately for keys and values."""
        draws = draw_uniform(num_layers, batch, self.kv_heads, tokens, self.key_gate)
        keys, values = draws.unsqueeze(-1).unbind(1)
        return keys, values

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: MemoryConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`; self-attention of the slots, once per row, is not counted."""
        width, slots, heads = config.width, config.num_slots, receiver.kv_heads
        # Scores of a token for all slots, and its share in each: for both caches, then for the position that reads.
        attention = [(width, slots), (slots, width)] * 2 + [(width, 2 * slots), (2 * slots, width)]
        up = [(width, heads * receiver.key_dim), (width, heads * receiver.value_dim)]
        return LinearMaps([(sharer.token_width, 2 * width), (receiver.token_width, 3 * width)], attention + up)

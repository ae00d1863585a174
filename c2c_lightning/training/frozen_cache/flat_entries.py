"""Cache entries of single tokens as vectors: keys and values of all layers that are kept, one behind the other.

Axes: B batch, C columns, T tokens, W values of one token.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from c2c_lightning.kv.geometry import KVGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack

Side = tuple[int, int]
"""KV heads and head width of keys, values or hidden states."""


@dataclass(frozen=True)
class FlatLayout:
    """Which entries a vector holds.

    Attributes:
        layers: numbers of the layers that are kept, ascending.
        sides: of every layer up to the last one that is kept: its keys, its values, and hidden states if it has them.
    """

    layers: tuple[int, ...]
    sides: tuple[tuple[Side, ...], ...]

    @classmethod
    def of(cls, geometry: KVGeometry, layers: Collection[int], has_hidden: bool) -> Self:
        """The layout of some layers.

        Args:
            geometry: shapes of the model's cache.
            layers: numbers of the layers that are kept.
            has_hidden: whether its cache holds hidden states too.
        """
        hidden = ((1, geometry.hidden_size),) if has_hidden and geometry.hidden_size else ()
        sides = [((g.kv_heads, g.key_dim), (g.kv_heads, g.value_dim), *hidden) for g in geometry.layers]
        return cls(tuple(sorted(layers)), tuple(sides[: max(layers, default=-1) + 1]))

    @property
    def widths(self) -> list[int]:
        """Number of values of each side that is kept."""
        return [heads * dim for layer in self.layers for heads, dim in self.sides[layer]]

    def flatten(self, kv: LayerStack, row: Int[Tensor, " T"], column: Int[Tensor, " T"]) -> Float[Tensor, "T W"]:
        """The entries of some tokens of a cache."""
        return torch.cat([side[row, :, column].flatten(1) for n in self.layers for side in _sides(kv[n])], 1)

    def unflatten(self, flat: Float[Tensor, "B C W"]) -> LayerStack:
        """A cache; layers that are not kept are zeros."""
        parts = iter(flat.split(self.widths, 2))
        none = flat.new_zeros(()).expand(flat.shape[0], flat.shape[1], 1)
        return [
            LayerKV(*[_side(next(parts), *side) if n in self.layers else _unread(none, *side) for side in sides])
            for n, sides in enumerate(self.sides)
        ]


def _sides(layer: LayerKV) -> list[Tensor]:
    return [layer.keys, layer.values, *([] if layer.hidden is None else [layer.hidden])]


def _side(flat: Tensor, heads: int, dim: int) -> Tensor:
    """(B, C, heads * dim) to (B, heads, C, dim), without a copy."""
    side: Tensor = flat.unflatten(2, (heads, dim)).transpose(1, 2)
    return side


def _unread(none: Tensor, heads: int, dim: int) -> Tensor:
    """Zeros (B, heads, C, dim) without memory."""
    return none[:, None].expand(-1, heads, -1, dim)

"""Conversion between caches and the packed entries of the fused tokens.

The fuser is pointwise over tokens, so padding and unfused tokens need not pass through it.
Axes: L layers of a stack, B batch, T tokens, F fused tokens of a batch, H KV heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from c2c_lightning.errors import FuserInputError
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.ops.stacked_norm import EPS


@dataclass(frozen=True)
class TokenPlaces:
    """Where packed tokens are in their batch.

    Attributes:
        row: (F,), row in the batch.
        token: (F,), column.
        batch: rows B.
        num_tokens: columns T.
    """

    row: Int[Tensor, " tokens"]
    token: Int[Tensor, " tokens"]
    batch: int
    num_tokens: int

    @property
    def mask(self) -> Bool[Tensor, "batch columns"]:
        """Which columns of which rows are packed, (B, T)."""
        mask = torch.zeros(self.batch, self.num_tokens, dtype=torch.bool, device=self.row.device)
        return mask.index_put((self.row, self.token), torch.ones_like(self.row, dtype=torch.bool))

    def padded(self, x: Float[Tensor, "layers tokens width"]) -> Float[Tensor, "batch columns layers width"]:
        """Numbers of packed tokens at their places in the batch, (B, T, L, W), zeros elsewhere."""
        empty = x.new_zeros(self.batch, self.num_tokens, len(x), x.shape[-1])
        return empty.index_put((self.row, self.token), x.transpose(0, 1))

    def packed(self, x: Float[Tensor, "batch columns layers width"]) -> Float[Tensor, "layers tokens width"]:
        """The inverse of `padded`."""
        return x[self.row, self.token].transpose(0, 1)


@dataclass(frozen=True)
class PackedKV:
    """Keys and values of packed tokens for a stack of layers.

    Attributes:
        keys: of all tokens.
        values: of all tokens.
        places: where the tokens are, for kinds that are not pointwise; None for entries that are not the receiver's.
    """

    keys: Float[Tensor, "layers tokens kv_heads key_dim"]
    values: Float[Tensor, "layers tokens kv_heads value_dim"]
    places: TokenPlaces | None = None

    @property
    def distinct(self) -> tuple[Tensor, ...]:
        """Keys and values, or hidden states once where they stand for both."""
        return (self.keys,) if self.keys is self.values else (self.keys, self.values)


def pack(
    layers: Sequence[LayerKV], row: Int[Tensor, " tokens"], token: Int[Tensor, " tokens"], like: Tensor
) -> PackedKV:
    """The entries of some tokens, on the device and in the type of `like` (a sharer may be on another device)."""
    row, token = row.to(layers[0].keys.device), token.to(layers[0].keys.device)
    keys, values = (_stack(part)[:, row, token] for part in _sides(layers))
    return PackedKV(keys.to(like.device, like.dtype), values.to(like.device, like.dtype))


def pack_receiver(
    layers: Sequence[LayerKV], row: Int[Tensor, " tokens"], token: Int[Tensor, " tokens"], like: Tensor
) -> PackedKV:
    """As `pack`, for the tokens that are fused: none occurs twice, and they are in the order of rows and columns."""
    places = TokenPlaces(row.to(like.device), token.to(like.device), len(layers[0].keys), layers[0].num_tokens)
    if not _are_all_tokens(layers, row):
        return replace(pack(layers, row, token, like), places=places)
    # One copy kernel that also converts, instead of a choice by index and a conversion.
    form: dict[str, Any] = {"dtype": like.dtype, "device": like.device, "memory_format": torch.contiguous_format}
    keys, values = (_stack(part).to(**form).flatten(1, 2) for part in _sides(layers))
    return PackedKV(keys, values, places)


def _are_all_tokens(layers: Sequence[LayerKV], row: Tensor) -> bool:
    """Whether fused tokens are all tokens of a cache, known from their number."""
    return len(row) == layers[0].keys.shape[0] * layers[0].num_tokens


def pack_hidden(
    layers: Sequence[LayerKV], row: Int[Tensor, " tokens"], token: Int[Tensor, " tokens"], like: Tensor
) -> PackedKV:
    """As `pack`, with the hidden states as keys and as values, each of root mean square 1.

    Raises:
        FuserInputError: a cache without hidden states.
    """
    hidden = [layer.hidden for layer in layers if layer.hidden is not None]
    if len(hidden) != len(layers):
        raise FuserInputError(
            "this fuser reads the sharer's hidden states (`sharer_input: hidden`), but its cache has none: caches from "
            "elsewhere hold keys and values only. Let the C2CModel run the sharer."
        )
    row, token = row.to(hidden[0].device), token.to(hidden[0].device)
    states = _stack(hidden)[:, row, token].to(like.device, like.dtype)
    # Some dimensions of hidden states are hundreds of times larger than others, and all of them grow with depth.
    states = F.rms_norm(states, states.shape[-1:], eps=EPS)
    return PackedKV(states, states)


def add_packed(
    layers: Sequence[LayerKV], row: Int[Tensor, " tokens"], token: Int[Tensor, " tokens"], residual: PackedKV
) -> LayerStack:
    """New layers: `layers` with the residual added to some of their tokens, see `pack_receiver` for their order."""
    sides = zip(_sides(layers), (residual.keys, residual.values), strict=True)
    keys, values = (_add(part, row, token, added) for part, added in sides)
    return [LayerKV(*pair) for pair in zip(keys, values, strict=True)]


def _sides(layers: Sequence[LayerKV]) -> tuple[list[Tensor], list[Tensor]]:
    return [kv.keys for kv in layers], [kv.values for kv in layers]


def _stack(parts: Sequence[Float[Tensor, "B H T D"]]) -> Float[Tensor, "L B T H D"]:
    """A new tensor of all layers."""
    # Concatenated along the batch: one copy kernel for all layers.
    joined = torch.cat(list(parts)).unflatten(0, (len(parts), parts[0].shape[0]))
    stacked: Tensor = joined.transpose(2, 3)
    return stacked


def _add(parts: Sequence[Tensor], row: Tensor, token: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
    stacked = _stack(parts)
    residual = residual.to(stacked.device)
    # Added in the wider of the two types, so that a float32 fuser keeps its precision up to the cache. The stack is
    # new, so writing into it changes no input.
    if residual.shape[1] == stacked.shape[1] * stacked.shape[2]:
        stacked.add_(residual.unflatten(1, stacked.shape[1:3]))
    else:
        stacked[:, row, token] = (stacked[:, row, token] + residual).to(stacked.dtype)
    # unbind, not indexing: its backward stacks the layers' gradients once.
    return stacked.transpose(2, 3).unbind(0)

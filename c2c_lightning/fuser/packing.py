"""Between caches and the fuser: the fused tokens of a batch, packed, for a stack of layers.

The fuser is pointwise over tokens, so padding and unfused tokens need not pass through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from c2c_lightning.kv.layer import LayerKV, LayerStack


@dataclass(frozen=True)
class PackedKV:
    """Keys and values of packed tokens for a stack of layers.

    Attributes:
        keys: (layers, tokens, kv_heads, key_dim).
        values: (layers, tokens, kv_heads, value_dim).
    """

    keys: Tensor
    values: Tensor


def stack(parts: Sequence[Tensor]) -> Tensor:
    """(batch, kv_heads, tokens, head_dim) of each layer as one new (layers, batch, tokens, kv_heads, head_dim) view."""
    # Joined along the batch: one copy kernel for all layers.
    joined = torch.cat(list(parts)).unflatten(0, (len(parts), parts[0].shape[0]))
    stacked: Tensor = joined.transpose(2, 3)
    return stacked


def pack(layers: Sequence[LayerKV], row: Tensor, token: Tensor, like: Tensor) -> PackedKV:
    """The entries of some tokens, moved to the device and type of `like`; a sharer may live on another device."""
    row, token = row.to(layers[0].keys.device), token.to(layers[0].keys.device)
    keys, values = (stack(parts)[:, row, token] for parts in ([kv.keys for kv in layers], [kv.values for kv in layers]))
    return PackedKV(keys.to(like.device, like.dtype), values.to(like.device, like.dtype))


def add_packed(layers: Sequence[LayerKV], row: Tensor, token: Tensor, residual: PackedKV) -> LayerStack:
    """The layers with a residual added to some of their tokens."""
    keys = _add([kv.keys for kv in layers], row, token, residual.keys)
    values = _add([kv.values for kv in layers], row, token, residual.values)
    return [LayerKV(*pair) for pair in zip(keys, values, strict=True)]


def _add(parts: Sequence[Tensor], row: Tensor, token: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
    stacked = stack(parts)
    residual = residual.to(stacked.device)
    # Added in the wider of the two types, so that an fp32 fuser keeps its precision up to the cache. The stack is new,
    # so writing into it touches nobody else's tensors.
    stacked[:, row, token] = (stacked[:, row, token] + residual).to(stacked.dtype)
    # unbind, not indexing: its backward stacks the layers' gradients once.
    return stacked.transpose(2, 3).unbind(0)

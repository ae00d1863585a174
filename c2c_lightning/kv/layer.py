"""Keys and values of one layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LayerKV:
    """Keys and values of one layer, after RoPE, as they lie in the cache."""

    keys: Float[Tensor, "batch kv_heads tokens key_dim"]
    values: Float[Tensor, "batch kv_heads tokens value_dim"]

    @property
    def num_tokens(self) -> int:
        """Length of the cache, in tokens, padding included."""
        return self.keys.shape[2]

    def tokens(self, begin: int, end: int | None = None) -> "LayerKV":
        """The entries of some tokens."""
        return LayerKV(self.keys[:, :, begin:end], self.values[:, :, begin:end])

    def rows(self, index: torch.Tensor) -> "LayerKV":
        """The entries of some rows of the batch."""
        index = index.to(self.keys.device)
        # Not indexing: its backward adds number by number.
        return LayerKV(self.keys.index_select(0, index), self.values.index_select(0, index))

    def repeat(self, repeats: int) -> "LayerKV":
        """Each row of the batch `repeats` times, for beams and several answers."""
        return LayerKV(self.keys.repeat_interleave(repeats, dim=0), self.values.repeat_interleave(repeats, dim=0))

    def append(self, new: "LayerKV") -> "LayerKV":
        """These entries followed by newer ones."""
        # Without a copy: a cache that was never filled is empty, and a model may have nothing to add.
        if self.num_tokens == 0:
            return new
        if new.num_tokens == 0:
            return self
        return LayerKV(torch.cat([self.keys, new.keys], 2), torch.cat([self.values, new.values], 2))

    def to(self, device: torch.device) -> "LayerKV":
        """The same entries on another device."""
        return LayerKV(self.keys.to(device, non_blocking=True), self.values.to(device, non_blocking=True))


LayerStack = list[LayerKV]
"""One `LayerKV` for each layer of a model, first layer first."""

SharerKV = Sequence[LayerStack | None]
"""The cache of each sharer, None for one that is left out."""


def append_kv(kv: LayerStack, new: LayerStack) -> LayerStack:
    """A cache followed by newer entries, layer by layer."""
    return [layer.append(entries) for layer, entries in zip(kv, new, strict=True)]

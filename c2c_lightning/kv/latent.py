"""Latent attention (MLA): how a fuser reads a cache that holds compressed entries.

DeepSeek-V2 and its kin cache two tensors per token with a single head: a latent, from which the keys and values of all
heads are linear maps, and the rotated part of the key, which all heads share (DeepSeek-V2, arXiv 2405.04434, Eq. 9-18).
transformers keeps the latent in the place of the keys and the rotated part in the place of the values. Since the first
map of a fuser is linear, the latent says as much to it as the expanded keys and values, in a fraction of the width.

| receiver | its place of keys reads | its place of values reads |
|---|---|---|
| ordinary | the sharer's key | the sharer's value |
| latent: latent, rotated part | the sharer's key and value | the sharer's key |

The key of a latent sharer is its latent followed by the rotated part, its value is its latent (the form in which the
expansion is absorbed by the queries); together they are its key.

Axes: B batch, H KV heads, T tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.kv.geometry import HiddenGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV

Entries = Float[Tensor, "batch kv_heads tokens dim"]


@dataclass(frozen=True)
class SharerView:
    """The keys and values that a fuser reads of a sharer layer.

    Attributes:
        receiver: shapes of the receiver layer.
        sharer: shapes of the sharer layer, as they lie in its cache.
    """

    receiver: LayerGeometry
    sharer: LayerGeometry

    @property
    def has_latent(self) -> bool:
        """Whether one of the layers is latent."""
        return self.receiver.is_latent or self.sharer.is_latent

    @property
    def geometry(self) -> LayerGeometry:
        """Shapes of the keys and values that are read."""
        if isinstance(self.sharer, HiddenGeometry):
            return self.sharer
        key, value = self._sides(self.sharer.key_dim, self.sharer.value_dim, lambda *dims: sum(dims))
        return LayerGeometry(self.sharer.kv_heads, key, value)

    def __call__(self, entries: LayerKV) -> LayerKV:
        """The keys and values that are read of a layer's entries; those themselves between ordinary layers."""
        if isinstance(self.sharer, HiddenGeometry) or not self.has_latent:
            return entries
        return LayerKV(*self._sides(entries.keys, entries.values, lambda *parts: torch.cat(parts, -1)))

    def _sides(self, first: Any, second: Any, join: Callable[..., Any]) -> tuple[Any, Any]:
        key, value = (join(first, second), first) if self.sharer.is_latent else (first, second)
        if not self.receiver.is_latent:
            return key, value
        return (key if self.sharer.is_latent else join(key, value)), key

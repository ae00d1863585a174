"""The precision in which a sharer's cache entries reach the receiver."""

from dataclasses import dataclass

import torch
from torch import Tensor

from c2c_lightning.channel.quantization import SCALE_BYTES, num_groups, quantize
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.kv.layer import LayerKV

PRECISIONS = {32: "unchanged", 16: "bf16", 8: "int8", 4: "int4"}
"""Bits per entry, and the format that they name."""


@dataclass(frozen=True)
class Channel:
    """Entries as they arrive after having been sent with `bits` per entry.

    Attributes:
        bits: 32 (unchanged, in the sharer's own type), 16 (bfloat16), 8 or 4 (integers with shared scales).
        group: channels that share a scale.
        noise: round up or down at random in training instead of to the nearest, so that the fuser sees varied errors.
    """

    bits: int = 32
    group: int = 64
    noise: bool = False

    def transmit(self, layer: LayerKV, training: bool = False) -> LayerKV:
        """The entries of one layer as the receiver's side gets them; keys and values are quantised apart."""
        if self.bits == 32:
            return layer
        dither = training and self.noise
        return layer.map(lambda entries: self._transmit(entries, dither))

    def _transmit(self, entries: Tensor, dither: bool) -> Tensor:
        if self.bits == 16:
            return entries.to(torch.bfloat16).to(entries.dtype)
        return quantize(entries, self.bits, self.group, dither).dequantize(entries.dtype)

    def token_bytes(self, layer: LayerGeometry, entry_bytes: int = 4) -> float:
        """Bytes of the keys and values of one token in one layer, before compression.

        Args:
            layer: shapes of the layer.
            entry_bytes: bytes of an unchanged entry: 4 for float32, 2 for bfloat16.
        """
        widths = (layer.key_dim, layer.value_dim)
        if self.bits >= 16:
            return float(layer.kv_heads * sum(widths) * min(entry_bytes, self.bits // 8))
        scales = sum(num_groups(width, self.group) for width in widths)
        return layer.kv_heads * (sum(widths) * self.bits / 8 + scales * SCALE_BYTES)

"""Symmetric integer quantisation of cache entries, with one scale per token, head and group of channels.

Groups never span tokens, so that the quantised entry of a token depends neither on its batch nor on later tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

SCALE_BYTES = 2
"""A scale is a bfloat16: the range of float32, and quantising a dequantised entry again changes nothing."""


def num_groups(width: int, group: int) -> int:
    """Number of channel groups, and so of scales, of a head of `width` channels."""
    return -(-width // group)


@dataclass(frozen=True)
class Quantized:
    """Quantised entries: `codes * scale`, each scale shared by a group of channels.

    Attributes:
        codes: integers in [-limit, limit], limit 127 (8 bits) or 7 (4 bits).
        scales: one per group.
        group: channels of a group; the last group may be smaller.
    """

    codes: Int[Tensor, "*entries width"]
    scales: Float[Tensor, "*entries groups"]
    group: int

    def dequantize(self, dtype: torch.dtype) -> Float[Tensor, "*entries width"]:
        """The entries, each within half a scale of the original."""
        per_channel = self.scales.float().repeat_interleave(self.group, -1)[..., : self.codes.shape[-1]]
        entries: Tensor = (self.codes * per_channel).to(dtype)
        return entries


def quantize(entries: Float[Tensor, "*entries width"], bits: int, group: int, dither: bool = False) -> Quantized:
    """Quantise the channels of each head.

    Args:
        entries: keys or values; the last axis is the width of a head.
        bits: 8 or 4.
        group: channels that share a scale.
        dither: round up or down at random, so that the expected value is the entry itself (for training).
    """
    limit = 2 ** (bits - 1) - 1
    width = entries.shape[-1]
    padded = F.pad(entries.float(), (0, -width % group)).unflatten(-1, (-1, group))
    scales = (padded.abs().amax(-1) / limit).to(torch.bfloat16)
    steps = padded / scales.float().masked_fill(scales == 0, 1).unsqueeze(-1)
    rounded = (steps + torch.rand_like(steps)).floor() if dither else steps.round()
    codes = rounded.clamp(-limit, limit).to(torch.int8).flatten(-2)[..., :width]
    return Quantized(codes, scales, group)


def pack_nibbles(codes: Int[Tensor, " n"]) -> UInt8[Tensor, " half"]:
    """Two 4-bit codes in [-7, 7] per byte; an odd last one shares its byte with a zero."""
    shifted = F.pad((codes + 8).to(torch.uint8), (0, codes.numel() % 2))
    packed: Tensor = shifted[::2] | (shifted[1::2] << 4)
    return packed


def unpack_nibbles(packed: UInt8[Tensor, " half"], count: int) -> Int[Tensor, " n"]:
    """The inverse of `pack_nibbles`: the first `count` codes."""
    codes = torch.stack([packed & 15, packed >> 4], 1).flatten()[:count]
    return codes.to(torch.int8) - 8

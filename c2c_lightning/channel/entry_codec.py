"""Entries of all layers as one tensor of codes and one of scales, which keeps the serialised header short."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from c2c_lightning.channel.channel import Channel
from c2c_lightning.channel.quantization import Quantized, num_groups, pack_nibbles, quantize, unpack_nibbles
from c2c_lightning.errors import ChannelError

Shape = Sequence[int]


def num_values(shape: Shape) -> int:
    """Number of elements of a tensor."""
    return math.prod(shape)


def encode_entries(sides: Sequence[Tensor], channel: Channel) -> dict[str, Tensor]:
    """Tensors to send for keys and values, each (F, H, D): `entries`, or `codes` and `scales`."""
    if channel.bits >= 16:
        flat = _join([side.flatten() for side in sides])
        return {"entries": flat.to(torch.bfloat16) if channel.bits == 16 else flat}
    parts = [quantize(side, channel.bits, channel.group) for side in sides]
    codes = _join([part.codes.flatten() for part in parts])
    scales = _join([part.scales.flatten() for part in parts])
    return {"codes": pack_nibbles(codes) if channel.bits == 4 else codes, "scales": scales}


def decode_entries(
    tensors: dict[str, Tensor], shapes: Sequence[Shape], channel: Channel, dtype: torch.dtype
) -> list[Tensor]:
    """The inverse of `encode_entries`, up to the channel's precision.

    Args:
        tensors: the tensors that were sent.
        shapes: (F, H, D) of each key and value tensor, in order.
        channel: with which they were sent.
        dtype: of the result.

    Raises:
        ChannelError: tensors of another length or type than the shapes ask for.
    """
    if any(size < 0 for shape in shapes for size in shape):
        raise ChannelError(f"the cache has layers of shapes {list(shapes)}.")
    total = sum(num_values(shape) for shape in shapes)
    if channel.bits >= 16:
        sent = torch.bfloat16 if channel.bits == 16 else dtype
        parts = _split(_checked(tensors, "entries", total, sent), shapes)
        return [part.to(dtype).view(*shape) for part, shape in zip(parts, shapes, strict=True)]
    if channel.bits == 4:
        codes = unpack_nibbles(_checked(tensors, "codes", -(-total // 2), torch.uint8), total)
    else:
        codes = _checked(tensors, "codes", total, torch.int8)
    grouped = [(*shape[:-1], num_groups(shape[-1], channel.group)) for shape in shapes]
    scales = _checked(tensors, "scales", sum(num_values(shape) for shape in grouped), torch.bfloat16)
    of_sides = zip(_split(codes, shapes), shapes, _split(scales, grouped), grouped, strict=True)
    return [
        Quantized(code.view(*shape), scale.view(*groups), channel.group).dequantize(dtype)
        for code, shape, scale, groups in of_sides
    ]


def _checked(tensors: dict[str, Tensor], name: str, length: int, dtype: torch.dtype) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype or tuple(tensor.shape) != (length,):
        found = "none" if tensor is None else f"{tuple(tensor.shape)} of type {tensor.dtype}"
        raise ChannelError(f"the cache should hold {length} `{name}` of type {dtype}, but has {found}.")
    return tensor


def _split(flat: Tensor, shapes: Sequence[Shape]) -> Iterator[Tensor]:
    return iter(flat.split([num_values(shape) for shape in shapes]))


def _join(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0)

"""Rotary position embedding of a model's keys, as plain numbers.

A key of width D at position p has its pairs of dimensions rotated by p times the frequency of the pair:

    half:        pairs (i, i + P), i < P
    interleaved: pairs (2 i, 2 i + 1)

with P pairs, 2 P <= D; other dimensions are not rotated.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LayerRotary:
    """The rotary table of one layer.

    Attributes:
        frequencies: radians per position of each rotated pair; empty where keys are not rotated.
        interleaved: which dimensions form a pair, see the module's documentation.
    """

    frequencies: tuple[float, ...] = ()
    interleaved: bool = False


def rotate(x: Float[Tensor, "*rest dim"], angle: Float[Tensor, "*rest_too pairs"], interleaved: bool) -> Tensor:
    """Keys with their pairs rotated, (..., D).

    Args:
        x: keys, (..., D).
        angle: radians, (..., P), broadcastable to the keys; negative to undo a rotation.
        interleaved: which dimensions form a pair.
    """
    pairs = angle.shape[-1]
    if not pairs:
        return x
    rotated, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    first, second = rotated.unflatten(-1, (pairs, 2)).unbind(-1) if interleaved else rotated.chunk(2, -1)
    # The angle is float32, as in the models; its sine is as exact as the keys.
    angle = angle.to(torch.promote_types(x.dtype, torch.float32))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    parts = [first * cos - second * sin, second * cos + first * sin]
    result = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
    return torch.cat([result, rest], -1) if rest.shape[-1] else result

"""Layer alignment: the sharer layer that each receiver layer is fused with (paper, appendix A.1.1)."""

from collections.abc import Sequence
from typing import Literal

from c2c_lightning.errors import LayerMapError

LayerMap = list[int | None]
"""For each receiver layer the sharer layer that it is fused with, or None for a layer that is not fused."""

LayerAlignment = Literal["terminal", "depth", "skip", "upper_half", "correlated", "answer"]
"""How layers are aligned; the last two are found from data, by `model.layer_probe` and `model.answer_probe`."""


def terminal(num_receiver_layers: int, num_sharer_layers: int) -> LayerMap:
    """Aligns the last layers, then backwards; receiver layers without a partner use sharer layer 0 (as released).

    Example:
        >>> terminal(4, 3)
        [0, 0, 1, 2]
    """
    offset = num_sharer_layers - num_receiver_layers
    return [min(max(n + offset, 0), num_sharer_layers - 1) for n in range(num_receiver_layers)]


def terminal_or_skip(num_receiver_layers: int, num_sharer_layers: int) -> LayerMap:
    """Aligns the last layers, then backwards; receiver layers without a partner are not fused (the paper's text).

    Example:
        >>> terminal_or_skip(4, 3)
        [None, 0, 1, 2]
    """
    offset = num_sharer_layers - num_receiver_layers
    return [n + offset if n + offset >= 0 else None for n in range(num_receiver_layers)]


def depth(num_receiver_layers: int, num_sharer_layers: int) -> LayerMap:
    """The sharer layer at the nearest normalized depth; ties go to the lower layer.

    Example:
        >>> depth(3, 6)
        [0, 2, 5]
    """
    last_receiver, last_sharer = max(num_receiver_layers - 1, 1), max(num_sharer_layers - 1, 1)

    def distance(n: int, m: int) -> int:
        return abs(n * last_sharer - m * last_receiver)  # integers, so that ties are exact

    return [min(range(num_sharer_layers), key=lambda m: distance(n, m)) for n in range(num_receiver_layers)]


def upper_half(num_receiver_layers: int, num_sharer_layers: int) -> LayerMap:
    """The upper half of the receiver's layers reads the upper half of the sharer's, by depth; the lower is not fused.

    Of an odd number of layers the middle one belongs to the upper half. Both ends meet; ties go to the upper layer.

    Example:
        >>> upper_half(6, 4)
        [None, None, None, 2, 3, 3]
    """
    first, base = num_receiver_layers // 2, num_sharer_layers // 2
    steps, rise = max(num_receiver_layers - first - 1, 1), num_sharer_layers - base - 1
    # Integers, so that ties are exact.
    above = [base + (2 * n * rise + steps) // (2 * steps) for n in range(num_receiver_layers - first)]
    return [None] * first + above


ALIGNMENTS = {"terminal": terminal, "skip": terminal_or_skip, "depth": depth, "upper_half": upper_half}


def checked_map(layer_map: Sequence[int | None], num_receiver_layers: int, num_sharer_layers: int) -> LayerMap:
    """An explicit layer map, with None or -1 for layers that are not fused.

    Raises:
        LayerMapError: the map has the wrong length or names a layer that does not exist.

    Example:
        >>> checked_map([-1, 0], 2, 1)
        [None, 0]
    """
    if len(layer_map) != num_receiver_layers:
        raise LayerMapError(
            f"layer_map has {len(layer_map)} entries, but the receiver has {num_receiver_layers} layers. "
            "Give one sharer layer for each receiver layer, -1 for those that are not fused."
        )
    for layer, source in enumerate(layer_map):
        if source is not None and not -1 <= source < num_sharer_layers:
            raise LayerMapError(
                f"receiver layer {layer} is mapped to sharer layer {source}, but the sharer has layers 0 to "
                f"{num_sharer_layers - 1}. Use `layer_alignment: terminal`, or correct `layer_map`."
            )
    return [None if source is None or source < 0 else source for source in layer_map]

"""Leaves out a part of the fusion: gates of a layer, single heads, or single tokens. The weights stay as they are.

Axes: L layers of a stack, F fused tokens, H KV heads, D head width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from c2c_lightning.analysis.gate_report import PARTS
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.pruning import fused_layers

HeadMask = Bool[Tensor, "receiver_layers 2 heads"]
"""What of one sharer is fused: True for each receiver layer, keys and values, and KV head."""

_NAME = "kept_heads"


@dataclass(frozen=True, order=True)
class FusedUnit:
    """A part of the fusion: both gates of a layer, one of them, or one KV head of a layer.

    Attributes:
        sharer: number of the sharer.
        layer: the receiver layer.
        part: `keys` or `values`; None for both.
        head: the KV head; None for all.
    """

    sharer: int
    layer: int
    part: str | None = None
    head: int | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        words = [f"sharer {self.sharer}"] if self.sharer else []
        words += [f"layer {self.layer}", *([self.part] if self.part else [])]
        return " ".join(words + ([] if self.head is None else [f"head {self.head}"]))

    def mask(self, fuser: Fuser) -> list[HeadMask]:
        """The masks that fuse this part alone."""
        masks = full_masks(fuser, False)
        parts = slice(None) if self.part is None else PARTS.index(self.part)
        heads = slice(None) if self.head is None else self.head
        masks[self.sharer][self.layer, parts, heads] = True
        return masks


def full_masks(fuser: Fuser, value: bool) -> list[HeadMask]:
    """A mask for each sharer, with all parts fused, or none."""
    layers = fuser.receiver_geometry.layers
    shape = (len(layers), 2, max(layer.kv_heads for layer in layers))
    return [torch.full(shape, value) for _ in fuser.sharers]


def layer_units(fuser: Fuser) -> list[FusedUnit]:
    """Every layer that is fused."""
    return [FusedUnit(s, n) for s, layers in enumerate(fused_layers(fuser)) for n in layers]


def gate_units(fuser: Fuser) -> list[FusedUnit]:
    """The gates of keys and of values of every layer that is fused."""
    return [FusedUnit(unit.sharer, unit.layer, part) for unit in layer_units(fuser) for part in PARTS]


def head_units(fuser: Fuser) -> list[FusedUnit]:
    """Every KV head of every layer that is fused."""
    counts = [layer.kv_heads for layer in fuser.receiver_geometry.layers]
    return [FusedUnit(u.sharer, u.layer, None, head) for u in layer_units(fuser) for head in range(counts[u.layer])]


@contextmanager
def masked_heads(fuser: Fuser, masks: Sequence[HeadMask]) -> Iterator[None]:
    """Adds no residual where the masks are False, inside the context; in every fusion mode and for every fuser kind."""
    with _hooks(fuser, _apply_heads):
        groups = [(group, mask) for sharer, mask in zip(fuser.sharers, masks, strict=True) for group in sharer.groups]
        for group, mask in groups:
            # A buffer, not a variable of the hook: the modes that fuse layer by layer split buffers into layers.
            kept = mask[group.receiver_layers].to(next(group.parameters()).device)
            group.register_buffer(_NAME, kept, persistent=False)
        try:
            yield
        finally:
            for group, _ in groups:
                delattr(group, _NAME)


def _apply_heads(group: Any, inputs: Any, residual: PackedKV) -> PackedKV:
    kept = getattr(group, _NAME)
    keys, values = kept[:, :, : residual.keys.shape[2]].unbind(1)
    # (L, H) to (L, 1, H, 1)
    return PackedKV(residual.keys * keys[:, None, :, None], residual.values * values[:, None, :, None])


@contextmanager
def masked_tokens(fuser: Fuser, kept: Bool[Tensor, "batch tokens"]) -> Iterator[None]:
    """Adds no residual to the prompt tokens where `kept` is False, inside the context.

    Unlike a prompt whose tokens are not mapped, the fusion spans stay: no other token is computed in another pass.
    """
    within: list[bool] = []

    def apply(group: Any, inputs: Any, residual: PackedKV) -> PackedKV:
        fused = inputs[2]
        mask = kept.to(fused.row.device)
        # Outside the fuser's forward pass: the one token that is fused in the response pass, the prompt's last.
        column = fused.token.clamp(max=mask.shape[1] - 1) if within else torch.full_like(fused.token, -1)
        # Response tokens (fusion mode `decode`) lie beyond the prompt.
        is_kept = mask[fused.row, column] | (fused.token >= mask.shape[1])
        factor = is_kept[None, :, None, None]
        return PackedKV(residual.keys * factor, residual.values * factor)

    handles = [
        fuser.register_forward_pre_hook(lambda module, inputs: within.append(True)),
        fuser.register_forward_hook(lambda module, inputs, result: within.clear(), always_call=True),
    ]
    try:
        with _hooks(fuser, apply):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _hooks(fuser: Fuser, hook: Callable[[Any, Any, PackedKV], PackedKV]) -> Iterator[None]:
    """A forward hook on every fuser kind inside the context."""
    handles = [group.register_forward_hook(hook) for sharer in fuser.sharers for group in sharer.groups]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

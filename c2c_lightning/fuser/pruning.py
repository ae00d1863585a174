"""Removes receiver layers from a fuser: their weights are dropped, and nothing is fused into them."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.fuser import Fuser


def closed_layers(fuser: Fuser) -> list[set[int]]:
    """For each sharer the receiver layers whose gates of keys and of values are both closed: they fuse nothing."""
    # NaN where a layer has no gate: never closed.
    closed = (fuser.gate_logits() <= 0).all(1)
    return [set(row.nonzero()[:, 0].tolist()) for row in closed]


def fused_layers(fuser: Fuser) -> list[list[int]]:
    """For each sharer the receiver layers that it is fused into."""
    return [[n for n, m in enumerate(sharer.layer_map) if m is not None] for sharer in fuser.sharers]


@torch.no_grad()
def without_layers(fuser: Fuser, dropped: Sequence[Collection[int]]) -> Fuser:
    """A copy of a fuser in evaluation mode without some of its layers.

    Args:
        fuser: the fuser.
        dropped: for each sharer the receiver layers that it is no longer fused into.

    Raises:
        FuserConfigError: no layer is left, or the layers of a kind read each other.
    """
    if not fuser.is_pointwise:
        raise FuserConfigError(
            "layers of this fuser cannot be removed: its kind pools all of them, so that the others would change too. "
            "Train it with a `layer_map` that leaves out layers (-1)."
        )
    pairs = list(zip(fuser.sharers, dropped, strict=True))
    maps = [[None if n in out else m for n, m in enumerate(sharer.layer_map)] for sharer, out in pairs]
    if all(m is None for layer_map in maps for m in layer_map):
        raise FuserConfigError(
            "no layer of the fuser would be left: its gates are closed everywhere, or every layer is dropped. Keep "
            "more layers, or train longer: a fuser without layers is the bare receiver."
        )
    config = replace(fuser.config, layer_map=[list(layer_map) for layer_map in maps])
    with torch.device("meta"):
        pruned = Fuser(fuser.receiver_geometry, fuser.sharer_geometries, config)
    state = {}
    for number, (old, new) in enumerate(zip(fuser.sharers, pruned.sharers, strict=True)):
        for index, group in enumerate(new.groups):
            # Every tensor of a stack has the layers as its first dimension.
            parts = [old.groups[g].layer_tensors(place) for g, place in map(old.place_of, group.receiver_layers)]
            for name in group.state_dict():
                state[f"sharers.{number}.groups.{index}.{name}"] = torch.cat([part[name] for part in parts])
    pruned.load_state_dict(state, assign=True)
    return pruned.eval()


def num_bytes(fuser: Fuser) -> int:
    """Size of the weights in bytes."""
    return sum(parameter.numel() * parameter.element_size() for parameter in fuser.parameters())

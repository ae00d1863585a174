"""How positions enter the keys of each layer, found by running the same tokens at other positions."""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.prefill import Prefill

SHIFT, TOLERANCE = 7, 0.05
"""Number of positions by which the tokens are moved, and the relative change that counts."""


class Positions(StrEnum):
    """How the position of a token enters a layer's entries.

    Rotary: keys change with the position and values do not. Absolute: values change too, since position embeddings are
    added to the hidden states. None: neither changes, as without positions, or with biases of the attention.
    """

    ROTARY = "rotary"
    ABSOLUTE = "absolute"
    NONE = "none"


@torch.no_grad()
def probe_positions(model: Any, num_layers: int, is_latent: bool = False) -> list[Positions]:
    """The positions of each layer with entries.

    Args:
        model: a causal language model with weights.
        num_layers: number of its layers with entries.
        is_latent: whether the rotated part of the keys is in the place of the values, see `kv.latent`.
    """
    device, size = next(model.parameters()).device, model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(5, 8, device=device) % size)[None]
    prefill = Prefill(model, num_layers, layout=CacheLayout.of(model.config))
    here, there = (
        prefill.run(ids, torch.ones_like(ids), torch.arange(begin, begin + 3, device=device)[None])
        for begin in (0, SHIFT)
    )
    found = []
    for one, other in zip(here, there, strict=True):
        keys, values = _changed(one.keys, other.keys), _changed(one.values, other.values)
        found.append(_positions(values, keys) if is_latent else _positions(keys, values))
    return found


def _positions(keys: bool, values: bool) -> Positions:
    if values:
        return Positions.ABSOLUTE
    return Positions.ROTARY if keys else Positions.NONE


def _changed(one: Tensor, other: Tensor) -> bool:
    return bool((one.float() - other.float()).norm() > TOLERANCE * one.float().norm())

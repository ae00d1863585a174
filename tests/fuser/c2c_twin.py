"""The released C2C projector for one layer, written out plainly on the authors' own tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from c2c_lightning.kv.layer import LayerKV


def released_residual(state: Mapping[str, Tensor], receiver: LayerKV, sharer: LayerKV) -> LayerKV:
    """Residual of the released `C2CProjector` in evaluation, for every token of every row.

    Args:
        state: state dict of one projector.
        receiver: the receiver's cache in this layer.
        sharer: the sharer's cache, as many tokens.
    """
    return LayerKV(
        _one_side(state, "key_", receiver.keys, sharer.keys), _one_side(state, "value_", receiver.values, sharer.values)
    )


def _one_side(state: Mapping[str, Tensor], side: str, receiver: Tensor, sharer: Tensor) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        out = x @ state[f"{side}{name}.weight"].T
        return out + state[f"{side}{name}.bias"] if f"{side}{name}.bias" in state else out

    def block(name: str, x: Tensor) -> Tensor:
        norm = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * state[f"{side}{name}.norm.weight"]
        inner = linear(f"{name}.w1", norm)
        gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + linear(f"{name}.w2", gelu)

    batch, heads, tokens, width = receiver.shape
    flat = [x.transpose(1, 2).reshape(batch, tokens, -1) for x in (sharer, receiver)]
    hidden = block("mlp1.blocks.0", linear("in", torch.cat(flat, -1)))
    weight = torch.sigmoid(linear("scalar_head", block("scalar_mlp2.blocks.0", hidden)))
    projected = hidden
    depth = 0
    while f"{side}proj_mlp2.blocks.{depth}.w1.weight" in state:
        projected, depth = block(f"proj_mlp2.blocks.{depth}", projected), depth + 1
    projected = linear("proj_out", projected).view(batch, tokens, heads, width)
    gate = float(state[f"{side}gate_logit"] > 0)
    return (gate * weight[..., None] * projected).transpose(1, 2)

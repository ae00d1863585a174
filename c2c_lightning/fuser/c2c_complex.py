"""C2C-C: the sharer's entries are brought to the receiver's size first (paper, appendix A.1.3).

The released code's `AllInOneProjector`. Its default form, for keys, and for values alike:

    projected = combine([mlp(sharer), receiver])
    fused = receiver + gate * weight(receiver, projected) * projected

Keys and values share one weighting network and one gate.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.gate import Gate
from c2c_lightning.fuser.joint_weighting import build_weighting
from c2c_lightning.fuser.layer_group import GateNoise, LayerGroup
from c2c_lightning.fuser.mlp import MLP, Activated, SwiGLU
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.stacked_linear import StackedLinear

UnpaddedDistributedSampler = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(what is added, the receiver's entries, their weight) to the change of the receiver's entries."""

SHARES: dict[str, UnpaddedDistributedSampler] = {
    "whole": lambda added, receiver, weight: added,
    "rest": lambda added, receiver, weight: added - weight * receiver,
    "none": lambda added, receiver, weight: added - receiver,
}


class SharerProjection(nn.Module):
    """The sharer's keys, or values, in the receiver's size, combined with the receiver's own."""

    def __init__(
        self, num_layers: int, receiver_heads: tuple[int, int], sharer_heads: tuple[int, int], config: FuserConfig
    ) -> None:
        """Make it for `num_layers` receiver layers.

        Args:
            num_layers: receiver layers in the stack.
            receiver_heads: (KV heads, head width) of the receiver.
            sharer_heads: (KV heads, head width) of the sharer.
            config: the choices.
        """
        super().__init__()
        self.heads, out_dim = receiver_heads, receiver_heads[0] * receiver_heads[1]
        self.mlp = sharer_mlp(num_layers, sharer_heads[0] * sharer_heads[1], out_dim, config)
        self.combine = StackedLinear(num_layers, 2 * out_dim, out_dim) if config.complex.concat else None

    def forward(self, receiver: Tensor, sharer: Tensor) -> Tensor:
        """What would be added to the receiver's entries, were weight and gate 1.

        Args:
            receiver: (layers, tokens, kv_heads, head_dim), the receiver's entries.
            sharer: (layers, tokens, sharer_kv_heads, sharer_head_dim), what each token reads.

        Returns:
            (layers, tokens, kv_heads, head_dim).
        """
        projected: Tensor = self.mlp(sharer.flatten(2))
        if self.combine is not None:
            projected = self.combine(torch.cat([projected, receiver.flatten(2)], -1))
        per_head: Tensor = projected.unflatten(-1, self.heads)
        return per_head


def sharer_mlp(num_layers: int, in_dim: int, out_dim: int, config: FuserConfig) -> MLP:
    """The MLP from the sharer's width to the receiver's, `config.num_layers` deep."""
    choices: ComplexConfig = config.complex
    widths = [in_dim, *[config.hidden_dim] * (config.num_layers - 1)]
    hidden: list[nn.Module] = [
        SwiGLU(num_layers, *pair, choices.layer_norm, config.dropout)
        if choices.swiglu
        else Activated(num_layers, *pair, choices.activation, choices.layer_norm, config.dropout)
        for pair in pairwise(widths)
    ]
    return MLP(hidden, StackedLinear(num_layers, widths[-1], out_dim), choices.residual and in_dim == out_dim)


class ComplexGroup(LayerGroup):
    """C2C-C for receiver layers of one shape that read sharer layers of one shape."""

    def __init__(
        self, pairs: Sequence[tuple[int, int]], receiver: LayerGeometry, sharer: LayerGeometry, config: FuserConfig
    ) -> None:
        """Make the fusers of `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        layers, self.shape = len(pairs), receiver
        heads, sharer_heads = receiver.kv_heads, sharer.kv_heads
        self.keys = SharerProjection(layers, (heads, receiver.key_dim), (sharer_heads, sharer.key_dim), config)
        self.values = SharerProjection(layers, (heads, receiver.value_dim), (sharer_heads, sharer.value_dim), config)
        self.weighting = build_weighting(layers, receiver, config.complex)
        self.gate = Gate(layers, config.gate_init, config.initial_temperature)
        self.receiver_share = config.complex.receiver_share

    @property
    def gates(self) -> list[Gate]:
        """One, of keys and values together."""
        return [self.gate, self.gate]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `LayerGroup.residual`."""
        projected = PackedKV(self.keys(receiver.keys, sharer.keys), self.values(receiver.values, sharer.values))
        key_weight, value_weight = self.weighting(receiver, projected)
        keys = self.gate(noise[0]) * key_weight * projected.keys
        values = self.gate(noise[1]) * value_weight * projected.values
        share = SHARES[self.receiver_share]
        return PackedKV(share(keys, receiver.keys, key_weight), share(values, receiver.values, value_weight))

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One number for each entry of a head, the same for keys and values; drawn as the released code draws."""
        heads, width = self.shape.kv_heads, max(self.shape.key_dim, self.shape.value_dim)
        logit = self.gate.logit
        draws = torch.rand(num_layers, batch, heads, tokens, width, device=logit.device, dtype=logit.dtype)
        return draws[..., : self.shape.key_dim], draws[..., : self.shape.value_dim]

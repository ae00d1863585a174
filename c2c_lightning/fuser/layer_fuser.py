"""Fusion of keys, or of values (paper, Eq. 3), for a stack of receiver layers at once."""

import torch
from torch import Tensor, nn

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.gate import Gate, OpenGate
from c2c_lightning.fuser.projector import FeatureFusion, Projector
from c2c_lightning.fuser.weighting import HeadWeighting, UnitWeighting


class LayerFuser(nn.Module):
    """F of Eq. 3: `fused = receiver + F(receiver, sharer)` with `F = gate * weight * projection`."""

    def __init__(self, features: FeatureFusion, projector: Projector, weighting: nn.Module, gate: nn.Module) -> None:
        """Put a fuser together from its parts."""
        super().__init__()
        self.features, self.projector, self.weighting, self.gate = features, projector, weighting, gate

    def forward(self, receiver: Tensor, sharer: Tensor, noise: Tensor | None = None) -> Tensor:
        """What is added to the receiver's entries.

        Args:
            receiver: (layers, tokens, kv_heads, head_dim), the receiver's entries.
            sharer: (layers, tokens, sharer_kv_heads, sharer_head_dim), what each token reads.
            noise: (layers, tokens, kv_heads, 1), gate noise while training, or None for hard gates.

        Returns:
            (layers, tokens, kv_heads, head_dim); zero where the gate is closed.
        """
        hidden = self.features(torch.cat([sharer.flatten(2), receiver.flatten(2)], -1))
        residual: Tensor = self.gate(noise) * self.weighting(hidden) * self.projector(hidden)
        return residual


class ProjectOnly(LayerFuser):
    """The ablation that replaces the receiver's entries by the projected sharer (paper table 8, "Project")."""

    def forward(self, receiver: Tensor, sharer: Tensor, noise: Tensor | None = None) -> Tensor:
        """As `LayerFuser.forward`, but the receiver's entries are neither read nor kept."""
        projected: Tensor = self.projector(self.features(sharer.flatten(2)))
        return projected - receiver


def build_layer_fuser(
    num_layers: int, receiver_heads: tuple[int, int], sharer_heads: tuple[int, int], config: FuserConfig
) -> LayerFuser:
    """The fuser of keys, or of values, that a configuration asks for.

    Args:
        num_layers: receiver layers in the stack.
        receiver_heads: (KV heads, head width) of the receiver.
        sharer_heads: (KV heads, head width) of the sharer.
        config: the choices.
    """
    sharer_dim, receiver_dim = sharer_heads[0] * sharer_heads[1], receiver_heads[0] * receiver_heads[1]
    is_weighted, is_gated = config.kind in ("c2c", "no_gates"), config.kind in ("c2c", "no_weights")
    in_dim = sharer_dim if config.kind == "project" else sharer_dim + receiver_dim
    parts = (
        FeatureFusion(num_layers, in_dim, config),
        Projector(num_layers, *receiver_heads, config),
        HeadWeighting(num_layers, receiver_heads[0], config) if is_weighted else UnitWeighting(),
        Gate(num_layers, config.gate_init, config.initial_temperature) if is_gated else OpenGate(),
    )
    return ProjectOnly(*parts) if config.kind == "project" else LayerFuser(*parts)

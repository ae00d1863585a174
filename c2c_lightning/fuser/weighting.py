"""Dynamic head weighting: how much of the projection each token and head takes (paper section 3.3.2, part 2)."""

import torch
from torch import Tensor, nn

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.ops.residual_mlp import Block
from c2c_lightning.ops.stacked_linear import NarrowLinear


class HeadWeighting(nn.Module):
    """One weight in (0, 1) for each token and receiver KV head, from the shared features."""

    def __init__(self, num_layers: int, num_heads: int, config: FuserConfig) -> None:
        """Make it for `num_layers` receiver layers with `num_heads` KV heads."""
        super().__init__()
        self.block = Block(num_layers, config.hidden_dim, config.hidden_dim, config.dropout)
        self.output = NarrowLinear(num_layers, config.hidden_dim, num_heads)

    def forward(self, hidden: Tensor) -> Tensor:
        """(layers, tokens, hidden) to (layers, tokens, kv_heads, 1)."""
        return torch.sigmoid(self.output(self.block(hidden))).unsqueeze(-1)


class UnitWeighting(nn.Module):
    """Every weight is 1 (ablations)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """One, whatever is read."""
        return hidden.new_ones(())

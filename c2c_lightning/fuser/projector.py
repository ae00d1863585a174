"""Projection: sharer and receiver entries become a residual for the receiver (paper section 3.3.2, part 1)."""

from torch import Tensor, nn

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.ops.residual_mlp import Block
from c2c_lightning.ops.stacked_linear import StackedLinear


class FeatureFusion(nn.Module):
    """The shared first half: what both projection and head weighting read."""

    def __init__(self, num_layers: int, in_dim: int, config: FuserConfig) -> None:
        """Make it for `num_layers` receiver layers and inputs of width `in_dim`."""
        super().__init__()
        self.input = StackedLinear(num_layers, in_dim, config.hidden_dim)
        self.block = Block(num_layers, config.hidden_dim, config.intermediate_dim, config.dropout)

    def forward(self, entries: Tensor) -> Tensor:
        """(layers, tokens, in) to (layers, tokens, hidden)."""
        hidden: Tensor = self.block(self.input(entries))
        return hidden


class Projector(nn.Module):
    """From shared features to the receiver's heads."""

    def __init__(self, num_layers: int, num_heads: int, head_dim: int, config: FuserConfig) -> None:
        """Make it for `num_layers` receiver layers with `num_heads` KV heads of width `head_dim`."""
        super().__init__()
        depth = config.num_layers - 2
        blocks = (Block(num_layers, config.hidden_dim, config.intermediate_dim, config.dropout) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.output = StackedLinear(num_layers, config.hidden_dim, num_heads * head_dim)
        self.heads = (num_heads, head_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(layers, tokens, hidden) to (layers, tokens, kv_heads, head_dim)."""
        projected: Tensor = self.output(self.blocks(hidden)).unflatten(-1, self.heads)
        return projected

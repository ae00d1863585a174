"""Layer norm for many layers at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StackedLayerNorm(nn.Module):
    """Layer norm with a scale and a shift for each layer."""

    def __init__(self, num_layers: int, dim: int) -> None:
        """Make `num_layers` norms of width `dim`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_layers, 1, dim))
        self.bias = nn.Parameter(torch.zeros(num_layers, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, dim), normalised over the last dimension."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)

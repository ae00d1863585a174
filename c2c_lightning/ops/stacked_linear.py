"""Building blocks for many layers at once.

All receiver layers have fusers of one shape, and the fuser is pointwise over tokens. So each weight is stacked over
layers, (layers, in, out), and each step is one batched product over all layers, however many there are: a GPU launches
tens of kernels instead of hundreds.
"""

import math

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """A linear map for each layer, started like `nn.Linear`."""

    def __init__(self, num_layers: int, in_dim: int, out_dim: int, bias: bool = True) -> None:
        """Make `num_layers` maps from `in_dim` to `out_dim`."""
        super().__init__()
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(num_layers, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_layers, 1, out_dim).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, in) to (layers, tokens, out)."""
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class NarrowLinear(StackedLinear):
    """A map to very few numbers, computed from its other side: products are slow whose last dimension is small."""

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, in) to (layers, tokens, out)."""
        assert self.bias is not None, "made with one"
        return torch.baddbmm(self.bias.mT, self.weight.mT, x.mT).mT

"""Linear maps of stacked layers.

All receiver layers of a shape have fusers of the same shape, and the fuser is pointwise over tokens. Each weight is
therefore stacked over layers, (L, in, out), and applied as one batched product: a GPU launches tens of kernels instead
of hundreds.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """One linear map per layer, initialised like `nn.Linear`."""

    def __init__(self, num_layers: int, in_dim: int, out_dim: int, bias: bool = True) -> None:
        """Make `num_layers` maps from `in_dim` to `out_dim`."""
        super().__init__()
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(num_layers, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_layers, 1, out_dim).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens out_dim"]:
        """The mapped tokens."""
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class NarrowLinear(StackedLinear):
    """A map to very few outputs, computed transposed: products with a small last dimension are slow."""

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens out_dim"]:
        """The mapped tokens."""
        assert self.bias is not None, "made with one"
        return torch.baddbmm(self.bias.mT, self.weight.mT, x.mT).mT

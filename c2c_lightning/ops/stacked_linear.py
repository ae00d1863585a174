"""Linear maps of stacked layers.

All receiver layers of a shape have fusers of the same shape, and the fuser is pointwise over tokens. Each weight is
therefore stacked over layers, (L, in, out), and applied as one batched product: a GPU launches tens of kernels instead
of hundreds.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def has_autocast(x: Tensor) -> bool:
    """Whether autocast chooses the types of products on the device of `x`."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def is_plain_inference(x: Tensor) -> bool:
    """Whether results may be written in place: no gradients, no autocast, and no compiler, which fuses by itself."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or has_autocast(x))


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

    def of_parts(self, *parts: Float[Tensor, "layers tokens _"]) -> Float[Tensor, "layers tokens out_dim"]:
        """The mapped concatenation of some parts; in inference they are not concatenated, but their products added."""
        if not is_plain_inference(parts[0]):
            return self.forward(torch.cat(parts, -1))
        weights = self.weight.split([part.shape[-1] for part in parts], 1)
        mapped = torch.bmm(parts[0], weights[0])
        mapped = mapped if self.bias is None else mapped.add_(self.bias)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            mapped.baddbmm_(part, weight)
        return mapped


class NarrowLinear(StackedLinear):
    """A map to very few outputs, computed transposed: products with a small last dimension are slow."""

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens out_dim"]:
        """The mapped tokens."""
        assert self.bias is not None, "made with one"
        return torch.baddbmm(self.bias.mT, self.weight.mT, x.mT).mT


class FactoredLinear(nn.Module):
    """One linear map of bounded rank per layer, as the product of two."""

    def __init__(self, num_layers: int, in_dim: int, rank: int, out_dim: int) -> None:
        """Make `num_layers` maps from `in_dim` to `out_dim`."""
        super().__init__()
        self.down = StackedLinear(num_layers, in_dim, rank, bias=False)
        self.up = StackedLinear(num_layers, rank, out_dim)

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens out_dim"]:
        """The mapped tokens."""
        mapped: Tensor = self.up(self.down(x))
        return mapped

"""Root-mean-square norm and layer norm of stacked layers: one scale per layer (L layers, F tokens)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-6


class StackedRMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension."""

    def __init__(self, num_layers: int, dim: int) -> None:
        """Make `num_layers` norms of width `dim`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_layers, 1, dim))

    def forward(self, x: Float[Tensor, "layers tokens dim"]) -> Float[Tensor, "layers tokens dim"]:
        """Normalised and scaled."""
        return F.rms_norm(x, x.shape[-1:], eps=EPS) * self.weight


class StackedLayerNorm(nn.Module):
    """Layer norm over the last dimension."""

    def __init__(self, num_layers: int, dim: int) -> None:
        """Make `num_layers` norms of width `dim`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_layers, 1, dim))
        self.bias = nn.Parameter(torch.zeros(num_layers, 1, dim))

    def forward(self, x: Float[Tensor, "layers tokens dim"]) -> Float[Tensor, "layers tokens dim"]:
        """Normalised, scaled and shifted."""
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


def rms_factor(x: Float[Tensor, "*rest dim"]) -> Float[Tensor, "*rest 1"]:
    """Factor of each token in its root-mean-square norm: the norm without scale is the product of `x` and this.

    It is float32 or wider: rounded to bfloat16 it would be the largest error of the norm.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square_().div_(x.shape[-1])
    factor: Tensor = mean_square.add_(EPS).rsqrt_()
    return factor


def norm_layer_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of all norm layers of a module, stacked or not."""
    for part in module.modules():
        if isinstance(part, StackedRMSNorm | StackedLayerNorm | nn.LayerNorm | nn.RMSNorm):
            yield from part.parameters()

"""Root-mean-square norm, for many layers at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


class StackedRMSNorm(nn.Module):
    """Root-mean-square norm with a scale for each layer."""

    def __init__(self, num_layers: int, dim: int) -> None:
        """Make `num_layers` norms of width `dim`."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_layers, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, dim), normalised over the last dimension."""
        return F.rms_norm(x, x.shape[-1:], eps=EPS) * self.weight


def normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """What a norm makes of `x` (..., dim) before it is scaled, and what each token was multiplied with, (..., 1).

    The latter is float32 where `x` is less: rounded to bfloat16 it would be the largest error of a norm.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square_().div_(x.shape[-1])
    factor = mean_square.add_(EPS).rsqrt_()
    return (x * factor).to(x.dtype), factor

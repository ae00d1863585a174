"""Root-mean-square norm, for many layers at once."""

from typing import Any

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
        # CUDA has one kernel for the norm and one for its gradient, and a compiler makes them; on CPU autograd walks
        # through memory some ten times for one norm.
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normalised: Tensor = _FewPasses.apply(x, self.weight)  # type: ignore[no-untyped-call]
            return normalised
        return F.rms_norm(x, x.shape[-1:], eps=EPS) * self.weight


class _FewPasses(torch.autograd.Function):
    """The same norm and its gradient, with three buffers instead of ten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul(x, scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        x, weight, scale = ctx.saved_tensors
        unit, grad = x * scale, grads[0]
        grad_weight = (grad * unit).sum(1, keepdim=True)
        grad_x = grad * weight
        along = torch.linalg.vecdot(grad_x, unit).div_(-x.shape[-1]).unsqueeze(-1)
        return grad_x.addcmul_(unit, along).mul_(scale), grad_weight

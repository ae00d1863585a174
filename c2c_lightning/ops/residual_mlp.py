"""The residual block of the fuser: `x + w2(gelu(w1(rmsnorm(x))))`, no bias (L stacked layers, F tokens)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.ops.stacked_linear import StackedLinear
from c2c_lightning.ops.stacked_norm import StackedRMSNorm, rms_factor


class ResidualMLP(nn.Module):
    """The block; norm and GELU are recomputed in the backward pass (`_LowMemoryUpdate`)."""

    def __init__(self, num_layers: int, dim: int, inner_dim: int, dropout: float) -> None:
        """Make blocks of width `dim` and inner width `inner_dim`."""
        super().__init__()
        self.norm = StackedRMSNorm(num_layers, dim)
        self.w1 = StackedLinear(num_layers, dim, inner_dim, bias=False)
        self.w2 = StackedLinear(num_layers, inner_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "layers tokens dim"]) -> Float[Tensor, "layers tokens dim"]:
        """The block's output."""
        # A hand-written backward pass has types and kernels of its own: it is for neither autocast nor a compiler.
        is_plain = _has_autocast(x) or torch.compiler.is_compiling() or not torch.is_grad_enabled()
        update: Tensor = self.dropout(self.plain_update(x) if is_plain else self._low_memory_update(x))
        # In place: nothing needs the update itself in the backward pass.
        return x + update if is_plain else update.add_(x)

    def plain_update(self, x: Float[Tensor, "layers tokens dim"]) -> Float[Tensor, "layers tokens dim"]:
        """`w2(gelu(w1(rmsnorm(x))))` by autograd: the reference."""
        update: Tensor = self.w2(F.gelu(self.w1(self.norm(x))))
        return update

    def _low_memory_update(self, x: Tensor) -> Tensor:
        update: Tensor = _LowMemoryUpdate.apply(x, self.norm.weight, self.w1.weight, self.w2.weight)  # type: ignore[no-untyped-call]
        return update


def _has_autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


class _LowMemoryUpdate(torch.autograd.Function):
    """`ResidualMLP.plain_update`; of each token only `x` and the input of the GELU are kept for the backward pass.

    Norm and GELU are recomputed there: beside the products they cost nothing, and autograd would keep both their inputs
    and outputs, which is most of a fuser's memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        inner = torch.bmm((x * rms_factor(x)).to(x.dtype).mul_(scale), w1)
        ctx.save_for_backward(x, scale, w1, w2, inner)
        return torch.bmm(F.gelu(inner), w2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        x, scale, w1, w2, inner = ctx.saved_tensors
        (grad,) = grads
        grad_w2 = torch.bmm(F.gelu(inner).mT, grad)
        grad_inner = torch.bmm(grad, w2.mT)
        torch.ops.aten.gelu_backward.grad_input(grad_inner, inner, grad_input=grad_inner)
        # The norm is `factor * x * scale` with one factor per token, so the normalised tokens are not needed again.
        factor = rms_factor(x)
        grad_inner.mul_(factor)
        grad_scaled_w1 = torch.bmm(x.mT, grad_inner)
        grad_scale = torch.linalg.vecdot(w1, grad_scaled_w1).unsqueeze(1)
        grad_w1 = grad_scaled_w1.mul_(scale.mT)
        grad_x = torch.bmm(grad_inner, w1.mT).mul_(scale)
        along = torch.einsum("lfd,lfd->lf", grad_x, x).div_(-x.shape[-1]).unsqueeze(-1)
        return grad_x.addcmul_(x, along * factor.square()), grad_scale, grad_w1, grad_w2

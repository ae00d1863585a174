"""The residual block of the fuser: `x + w2(gelu(w1(rmsnorm(x))))`, no bias (L stacked layers, F tokens)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.ops.stacked_linear import StackedLinear, has_autocast, is_plain_inference
from c2c_lightning.ops.stacked_norm import EPS, StackedRMSNorm, rms_factor


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
        is_plain = has_autocast(x) or torch.compiler.is_compiling() or not torch.is_grad_enabled()
        update: Tensor = self.dropout(self.plain_update(x) if is_plain else self._low_memory_update(x))
        # In place: nothing needs the update itself in the backward pass.
        return x + update if is_plain else update.add_(x)

    def overwrite(self, x: Float[Tensor, "layers tokens dim"]) -> Float[Tensor, "layers tokens dim"]:
        """As `forward`; in inference the output takes the place of `x`: less memory traffic, fewer launches."""
        if not is_plain_inference(x) or (self.training and self.dropout.p > 0):
            return self(x)  # type: ignore[no-any-return]
        normed, w1 = F.rms_norm(x, x.shape[-1:], eps=EPS), self.w1.weight
        # The norm's scale multiplies the smaller of the two: the tokens, or the weights that read them.
        inner = (
            torch.bmm(normed.mul_(self.norm.weight), w1)
            if x.shape[1] < w1.shape[2]
            else torch.bmm(normed, w1 * self.norm.weight.mT)
        )
        return x.baddbmm_(torch.ops.aten.gelu_(inner), self.w2.weight)

    def plain_update(self, x: Float[Tensor, "layers tokens dim"]) -> Float[Tensor, "layers tokens dim"]:
        """`w2(gelu(w1(rmsnorm(x))))` by autograd: the reference."""
        update: Tensor = self.w2(F.gelu(self.w1(self.norm(x))))
        return update

    def _low_memory_update(self, x: Tensor) -> Tensor:
        update: Tensor = _LowMemoryUpdate.apply(x, self.norm.weight, self.w1.weight, self.w2.weight)  # type: ignore[no-untyped-call]
        return update


#: Numbers per temporary tensor on a CPU, which computes few layers at a time. A GPU computes all layers at once.
CPU_NUMBERS = 2**20


def _layer_chunks(x: Tensor) -> list[slice]:
    layers, tokens, dim = x.shape
    step = max(1, CPU_NUMBERS // max(1, tokens * dim)) if x.device.type == "cpu" else layers
    return [slice(begin, begin + step) for begin in range(0, layers, step)]


class _LowMemoryUpdate(torch.autograd.Function):
    """`ResidualMLP.plain_update`; of each token only `x` and the input of the GELU are kept for the backward pass.

    Norm and GELU are recomputed there: next to the products they cost nothing, and autograd would keep both their
    inputs and outputs, which is most of a fuser's memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        inner, out = x.new_empty(*x.shape[:2], w1.shape[-1]), torch.empty_like(x)
        for n in _layer_chunks(x):
            torch.bmm((x[n] * rms_factor(x[n])).to(x.dtype).mul_(scale[n]), w1[n], out=inner[n])
            torch.bmm(F.gelu(inner[n]), w2[n], out=out[n])
        ctx.save_for_backward(x, scale, w1, w2, inner)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        x, scale, w1, w2, inner = ctx.saved_tensors
        (grad,) = grads
        grad_x, grad_scale, grad_w1, grad_w2 = (torch.empty_like(tensor) for tensor in (x, scale, w1, w2))
        for n in _layer_chunks(x):
            torch.bmm(F.gelu(inner[n]).mT, grad[n], out=grad_w2[n])
            grad_inner = torch.bmm(grad[n], w2[n].mT)
            torch.ops.aten.gelu_backward.grad_input(grad_inner, inner[n], grad_input=grad_inner)
            # The norm is `factor * x * scale` with one factor per token, so the normalised tokens are not needed again.
            factor = rms_factor(x[n])
            grad_inner.mul_(factor)
            grad_scaled_w1 = torch.bmm(x[n].mT, grad_inner)
            grad_scale[n] = torch.linalg.vecdot(w1[n], grad_scaled_w1).unsqueeze(1)
            torch.mul(grad_scaled_w1, scale[n].mT, out=grad_w1[n])
            of_x = torch.bmm(grad_inner, w1[n].mT, out=grad_x[n]).mul_(scale[n])
            along = torch.linalg.vecdot(of_x, x[n]).div_(-x.shape[-1]).unsqueeze(-1)
            of_x.addcmul_(x[n], along * factor.square())
        return grad_x, grad_scale, grad_w1, grad_w2

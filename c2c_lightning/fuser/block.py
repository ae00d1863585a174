"""The block that all parts of a fuser are made of."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2c_lightning.fuser.rms_norm import StackedRMSNorm, normalised
from c2c_lightning.fuser.stacked import StackedLinear


class Block(nn.Module):
    """`x + w2(gelu(w1(rmsnorm(x))))`, no bias."""

    def __init__(self, num_layers: int, dim: int, inner_dim: int, dropout: float) -> None:
        """Make blocks of width `dim` and inner width `inner_dim`."""
        super().__init__()
        self.norm = StackedRMSNorm(num_layers, dim)
        self.w1 = StackedLinear(num_layers, dim, inner_dim, bias=False)
        self.w2 = StackedLinear(num_layers, inner_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, dim) to the same shape."""
        if not _is_chosen_elsewhere(x):
            scale, w1, w2 = self.norm.weight, self.w1.weight, self.w2.weight
            if torch.is_grad_enabled():
                return x + self._dropped(_LeanUpdate.apply(x, scale, w1, w2))  # type: ignore[no-untyped-call]
            if not self.training:
                return torch.baddbmm(x, torch.ops.aten.gelu_(_inner(x, scale, w1)), w2)
        return x + self._dropped(self.w2(F.gelu(self.w1(self.norm(x)))))

    def _dropped(self, update: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(update)
        return dropped


def _is_chosen_elsewhere(x: Tensor) -> bool:
    """Whether autocast chooses the types, or a compiler the kernels."""
    return torch.is_autocast_enabled(x.device.type) or torch.compiler.is_compiling()


def _inner(x: Tensor, scale: Tensor, w1: Tensor) -> Tensor:
    """What goes into the gelu, (layers, tokens, inner)."""
    return torch.bmm(normalised(x)[0].mul_(scale), w1)


class _LeanUpdate(torch.autograd.Function):
    """`w2(gelu(w1(rmsnorm(x))))`; of each token only its input and what goes into the gelu are kept.

    Norm and gelu are computed again on the way back: next to the products they cost nothing, and what autograd would
    keep of them is most of a fuser's memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        inner = _inner(x, scale, w1)
        ctx.save_for_backward(x, scale, w1, w2, inner)
        return torch.bmm(F.gelu(inner), w2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, ...]:
        x, scale, w1, w2, inner = ctx.saved_tensors
        (grad,) = grads
        of_w2 = F.gelu(inner).mT @ grad
        of_inner = torch.ops.aten.gelu_backward(grad @ w2.mT, inner)
        unit, factor = normalised(x)
        # Both from one product: the scale stands between the tokens and w1.
        of_scaled_w1 = unit.mT @ of_inner
        of_scale = torch.linalg.vecdot(w1, of_scaled_w1).unsqueeze(1)
        of_unit = (of_inner @ w1.mT).mul_(scale)
        along = torch.linalg.vecdot(of_unit, unit).div_(-x.shape[-1]).unsqueeze(-1)
        return of_unit.addcmul_(unit, along).mul_(factor), of_scale, of_scaled_w1.mul_(scale.mT), of_w2

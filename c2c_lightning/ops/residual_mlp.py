"""The block that all parts of a fuser are made of."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2c_lightning.ops.rms_norm import StackedRMSNorm, normalised
from c2c_lightning.ops.stacked_linear import StackedLinear

#: Numbers that a CPU works on at a time, so that they stay in its cache: 512 KiB in float32.
_cached: ContextVar[int] = ContextVar("numbers in a cache", default=2**17)


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
        if _is_chosen_elsewhere(x):
            return x + self._dropped(self.w2(F.gelu(self.w1(self.norm(x)))))
        weights = self.norm.weight, self.w1.weight, self.w2.weight
        if self.training and self.dropout.p:
            return x + self._dropped(_Lean.apply(x, *weights, False))  # type: ignore[no-untyped-call]
        if not torch.is_grad_enabled():
            return _run(x, *weights, is_added=True)
        whole: Tensor = _Lean.apply(x, *weights, True)  # type: ignore[no-untyped-call]
        return whole

    def _dropped(self, update: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(update)
        return dropped


def _is_chosen_elsewhere(x: Tensor) -> bool:
    """Whether autocast chooses the types, or a compiler the kernels."""
    kind = x.device.type
    has_autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return has_autocast or torch.compiler.is_compiling()


@contextmanager
def all_layers_at_once() -> Iterator[None]:
    """While it lasts, a CPU works on all layers at once, as a GPU does: to count what a GPU would launch."""
    token = _cached.set(sys.maxsize)
    try:
        yield
    finally:
        _cached.reset(token)


def _visits(x: Tensor) -> Iterator[slice]:
    """Layers to work on at a time: all at once, but on a CPU only as many as stay in its cache."""
    layers, tokens, dim = x.shape
    step = min(layers, max(1, _cached.get() // max(1, tokens * dim))) if x.device.type == "cpu" else layers
    return (slice(begin, begin + step) for begin in range(0, layers, step))


def _run(x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor, is_added: bool, into_gelu: Tensor | None = None) -> Tensor:
    """The update `w2(gelu(w1(rmsnorm(x))))`, or with `is_added` the block; `into_gelu` is filled on the way."""
    out = torch.empty_like(x)
    for n in _visits(x):
        kept = None if into_gelu is None else into_gelu[n]
        inner = F.gelu(torch.bmm(normalised(x[n])[0].mul_(scale[n]), w1[n], out=kept))
        if is_added:
            torch.baddbmm(x[n], inner, w2[n], out=out[n])
        else:
            torch.bmm(inner, w2[n], out=out[n])
    return out


class _Lean(torch.autograd.Function):
    """`_run`; of each token only its input and what goes into the gelu are kept.

    Norm and gelu are computed again on the way back: next to the products they cost nothing, and what autograd would
    keep of them is most of a fuser's memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, w1: Tensor, w2: Tensor, is_added: bool) -> Tensor:
        into_gelu = x.new_empty(*x.shape[:2], w1.shape[-1])
        ctx.save_for_backward(x, scale, w1, w2, into_gelu)
        ctx.is_added = is_added
        return _run(x, scale, w1, w2, is_added, into_gelu)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, scale, w1, w2, into_gelu = ctx.saved_tensors
        (grad,) = grads
        of_x, of_scale, of_w1, of_w2 = (torch.empty_like(tensor) for tensor in (x, scale, w1, w2))
        for n in _visits(x):
            torch.bmm(F.gelu(into_gelu[n]).mT, grad[n], out=of_w2[n])
            of_inner = torch.ops.aten.gelu_backward(grad[n] @ w2[n].mT, into_gelu[n])
            unit, factor = normalised(x[n])
            # Both from one product: the scale stands between the tokens and w1.
            of_scaled_w1 = unit.mT @ of_inner
            of_scale[n] = torch.linalg.vecdot(w1[n], of_scaled_w1).unsqueeze(1)
            torch.mul(of_scaled_w1, scale[n].mT, out=of_w1[n])
            of_unit = torch.bmm(of_inner, w1[n].mT, out=of_x[n]).mul_(scale[n])
            along = torch.linalg.vecdot(of_unit, unit).div_(-x.shape[-1]).unsqueeze(-1)
            of_unit.addcmul_(unit, along).mul_(factor)
            if ctx.is_added:
                of_unit.add_(grad[n])
        return of_x, of_scale, of_w1, of_w2, None

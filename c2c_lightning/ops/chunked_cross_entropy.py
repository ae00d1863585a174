"""Cross-entropy over a large vocabulary in chunks of tokens: the logits of the whole batch never exist at once."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

#: Number of logits that exist at a time: 256 MiB in float32.
MAX_LOGITS = 2**26


class LinearHead:
    """A frozen linear output head, with an optional cap on its logits."""

    def __init__(self, linear: nn.Linear, cap: float | None, vocab: int) -> None:
        """Take output embeddings.

        Args:
            linear: from hidden states to logits.
            cap: soft cap on the logits (Gemma 2), None for none.
            vocab: size of the vocabulary.
        """
        self.linear, self.cap, self.vocab = linear, cap, vocab

    def logits(self, hidden: Float[Tensor, "*rest width"]) -> Float[Tensor, "*rest vocab"]:
        """Logits at each hidden state."""
        logits: Tensor = self.linear(hidden.contiguous())  # a strided view is multiplied row by row
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def summed_loss(
        self, hidden: Float[Tensor, "tokens width"], targets: Int[Tensor, " tokens"], max_logits: int = MAX_LOGITS
    ) -> Float[Tensor, ""]:
        """Summed cross-entropy in nats.

        Args:
            hidden: (tokens, width), last hidden states at supervised positions.
            targets: (tokens,), the ids of the next tokens.
            max_logits: number of logits that may exist at a time.
        """
        loss: Tensor = _ChunkedLoss.apply(hidden, targets, self, max(1, max_logits // self.vocab))  # type: ignore[no-untyped-call]
        return loss


def summed_loss(logits: Float[Tensor, "tokens vocab"], targets: Int[Tensor, " tokens"]) -> Float[Tensor, ""]:
    """Summed cross-entropy in nats, in float32 or wider: the plain reference."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, targets, reduction="sum")


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradient of each chunk in the forward pass; the backward pass needs (tokens, width) only."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: LinearHead, step: int) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        grads: list[Tensor] = []
        for part, wanted in zip(hidden.detach().split(step), targets.split(step), strict=True):
            logits = head.logits(part)
            slope = None if head.cap is None else 1 - (logits / head.cap) ** 2
            # Softmax in place: a second tensor of this size would be the largest of the step.
            p = logits.to(total.dtype)
            p -= p.amax(-1, keepdim=True)
            chosen = p.gather(1, wanted[:, None])
            mass = p.exp_().sum(-1, keepdim=True)
            total += (mass.log() - chosen).sum()
            if ctx.needs_input_grad[0]:
                grad = p.div_(mass)
                grad[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
                if slope is not None:
                    grad.mul_(slope)
                grads.append(grad.to(head.linear.weight.dtype) @ head.linear.weight)
        ctx.save_for_backward(*([torch.cat(grads)] if grads else []))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None, None, None

"""The learnable gate: whether a layer is fused at all (paper section 3.3.2, part 3).

The released code adds one Gumbel variable to the logit, which biases training towards open gates: at logit 0 a gate is
open 63 % of the time in training and shut in evaluation. `logistic`, the difference of two Gumbels, has no such bias.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Noise = Callable[[Tensor], Tensor]


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform draws in [0, 1), with the released code's guards against log 0."""
    return -torch.log(-torch.log(uniform + 1e-20) + 1e-20)


def logistic(uniform: Tensor) -> Tensor:
    """Standard logistic noise from uniform draws in [0, 1)."""
    return torch.logit(uniform, eps=1e-7)


NOISES: dict[str, Noise] = {"gumbel": gumbel, "logistic": logistic}


def draw_uniform(num_layers: int, batch: int, kv_heads: int, tokens: int, gate: "Gate") -> Tensor:
    """Uniform draws for keys and values, (layers, 2, batch, kv_heads, tokens).

    One draw in the order in which the released code draws layer by layer, so that the same CPU seed gives the same
    noise: one number for each example, KV head and token of the span, padding included. A span's tokens are counted
    from its first one in each row, as if shorter rows were padded on the right.
    """
    return torch.rand(num_layers, 2, batch, kv_heads, tokens, device=gate.logit.device, dtype=gate.logit.dtype)


class Gate(nn.Module):
    """One logit for each layer; the temperature is annealed from outside."""

    logit: Tensor
    temperature: Tensor

    def __init__(self, num_layers: int, init: float, temperature: float) -> None:
        """Start `num_layers` gates at logit `init`."""
        super().__init__()
        self.logit = nn.Parameter(torch.full((num_layers,), init))
        self.register_buffer("temperature", torch.full((num_layers,), temperature))

    @property
    def is_open(self) -> Tensor:
        """Which layers are fused in evaluation, (layers,)."""
        return self.logit > 0

    def forward(self, noise: Tensor | None) -> Tensor:
        """How far each gate is open.

        Args:
            noise: (layers, tokens, kv_heads, 1) while training, or None for hard gates.

        Returns:
            Broadcastable to (layers, tokens, kv_heads, head_dim).
        """
        if noise is None:
            return self.is_open.to(self.logit.dtype)[:, None, None, None]
        logit, temperature = self.logit[:, None, None, None], self.temperature[:, None, None, None]
        return torch.sigmoid((logit + noise) / temperature)


class OpenGate(nn.Module):
    """Always open (ablations)."""

    def forward(self, noise: Tensor | None) -> Tensor:
        """One, whatever the noise."""
        return torch.ones(())

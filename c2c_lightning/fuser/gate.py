"""The learnable gate of each layer (paper section 3.3.2).

The released code adds one Gumbel variable to the logit, which biases training towards open gates: at logit 0 a gate is
open 63 % of the time in training and closed in evaluation. `logistic`, the difference of two Gumbels, has no such bias.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform draws in [0, 1), with the released code's guards against log 0."""
    return -torch.log(-torch.log(uniform + 1e-20) + 1e-20)


def logistic(uniform: Tensor) -> Tensor:
    """Standard logistic noise from uniform draws in [0, 1)."""
    return torch.logit(uniform, eps=1e-7)


NOISES: dict[str, Callable[[Tensor], Tensor]] = {"gumbel": gumbel, "logistic": logistic}


class Gate(nn.Module):
    """One logit per layer; the temperature is annealed by the training loop."""

    logit: Tensor
    temperature: Tensor

    def __init__(self, num_layers: int, init: float, temperature: float) -> None:
        """Make the gates of `num_layers` layers.

        Args:
            num_layers: number of layers L.
            init: start value of the logits.
            temperature: of all gates.
        """
        super().__init__()
        self.logit = nn.Parameter(torch.full((num_layers,), init))
        self.register_buffer("temperature", torch.full((num_layers,), temperature))

    @property
    def is_open(self) -> Tensor:
        """Which layers are fused in evaluation, (L,)."""
        return self.logit > 0

    def forward(self, noise: Float[Tensor, "layers tokens heads width"] | None) -> Float[Tensor, "layers #t #h #w"]:
        """Openness of each gate in [0, 1], broadcastable to (L, F, H, D).

        Args:
            noise: gate noise in training; None for hard gates.
        """
        # Hard gates in evaluation, and in training without noise: logit 0 is closed, as released.
        if noise is None:
            return self.is_open.to(self.logit.dtype)[:, None, None, None]
        logit, temperature = self.logit[:, None, None, None], self.temperature[:, None, None, None]
        return torch.sigmoid((logit + noise) / temperature)


class OpenGate(nn.Module):
    """A gate that is always open (ablations)."""

    def forward(self, noise: Tensor | None) -> Tensor:
        """1."""
        return torch.ones(())


def draw_uniform(
    num_layers: int, batch: int, kv_heads: int, tokens: int, gate: Gate
) -> Float[Tensor, "layers 2 batch heads tokens"]:
    """Uniform draws for keys and values, in the order of the released code, so that equal CPU seeds give equal noise.

    One number per layer, row, KV head and token of the span, padding included. A span's tokens are counted from the
    first one of each row, as if shorter rows were padded on the right.
    """
    return torch.rand(num_layers, 2, batch, kv_heads, tokens, device=gate.logit.device, dtype=gate.logit.dtype)

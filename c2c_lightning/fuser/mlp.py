"""A plain MLP for many layers at once, as C2C-C has it (the released `ModernMLP`)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from c2c_lightning.fuser.layer_norm import StackedLayerNorm
from c2c_lightning.ops.stacked_linear import StackedLinear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class Activated(nn.Module):
    """A hidden layer with one activation: `dropout(activation(norm(map(x))))`."""

    def __init__(
        self, num_layers: int, in_dim: int, out_dim: int, activation: str, has_norm: bool, dropout: float
    ) -> None:
        """Make it for `num_layers` receiver layers."""
        super().__init__()
        self.map = StackedLinear(num_layers, in_dim, out_dim)
        self.norm = StackedLayerNorm(num_layers, out_dim) if has_norm else None
        self.activation, self.dropout = ACTIVATIONS[activation], nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, in) to (layers, tokens, out)."""
        hidden: Tensor = self.map(x)
        hidden = hidden if self.norm is None else self.norm(hidden)
        dropped: Tensor = self.dropout(self.activation(hidden))
        return dropped


class SwiGLU(nn.Module):
    """A hidden layer that gates itself: `dropout(norm(silu(gate(x)) * up(x)))`."""

    def __init__(self, num_layers: int, in_dim: int, out_dim: int, has_norm: bool, dropout: float) -> None:
        """Make it for `num_layers` receiver layers."""
        super().__init__()
        self.gate = StackedLinear(num_layers, in_dim, out_dim)
        self.up = StackedLinear(num_layers, in_dim, out_dim)
        self.norm = StackedLayerNorm(num_layers, out_dim) if has_norm else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, in) to (layers, tokens, out)."""
        hidden: Tensor = F.silu(self.gate(x)) * self.up(x)
        dropped: Tensor = self.dropout(hidden if self.norm is None else self.norm(hidden))
        return dropped


class MLP(nn.Module):
    """Hidden layers, one linear map, and the input added to the result where it has the same width."""

    def __init__(self, hidden: list[nn.Module], output: StackedLinear, has_residual: bool) -> None:
        """Put it together from its layers.

        Args:
            hidden: the hidden layers, in order.
            output: the map from the last of them.
            has_residual: whether the input is added to the result.
        """
        super().__init__()
        self.hidden, self.output, self.has_residual = nn.Sequential(*hidden), output, has_residual

    def forward(self, x: Tensor) -> Tensor:
        """(layers, tokens, in) to (layers, tokens, out)."""
        result: Tensor = self.output(self.hidden(x))
        return x + result if self.has_residual else result

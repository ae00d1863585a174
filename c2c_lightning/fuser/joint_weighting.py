"""Head weighting of C2C-C: the weights of keys and of values come from one network (the released `AllInOneProjector`).

What it reads are the receiver's entries and, as a rule, what was projected for them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.mlp import MLP, Activated
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.stacked_linear import StackedLinear

Weights = tuple[Tensor, Tensor]
"""Weights of keys and of values, each broadcastable to (layers, tokens, kv_heads, head_dim)."""

# (receiver, projected) to what the weighting reads of each head.
FEATURES: dict[str, Callable[[PackedKV, PackedKV], list[Tensor]]] = {
    "key": lambda receiver, projected: [receiver.keys],
    "value": lambda receiver, projected: [receiver.values],
    "both": lambda receiver, projected: [receiver.keys, receiver.values],
    "projected_key": lambda receiver, projected: [receiver.keys, projected.keys],
    "projected_value": lambda receiver, projected: [receiver.values, projected.values],
    "projected_both": lambda receiver, projected: [receiver.keys, receiver.values, projected.keys, projected.values],
}


def features_width(features: str, receiver: LayerGeometry) -> int:
    """Width of what `FEATURES` gives for one head."""
    one = PackedKV(torch.empty(receiver.key_dim), torch.empty(receiver.value_dim))
    return sum(len(part) for part in FEATURES[features](one, one))


class ReadingWeighting(nn.Module, ABC):
    """Weights in (0, 1) from what is read: a shared hidden MLP and a linear head each for keys and for values."""

    def __init__(self, num_layers: int, in_dim: int, out_dims: tuple[int, int], config: ComplexConfig) -> None:
        """Make it for `num_layers` receiver layers.

        Args:
            num_layers: receiver layers in the stack.
            in_dim: width of what it reads at once.
            out_dims: how many weights it gives for keys and for values.
            config: the choices.
        """
        super().__init__()
        width = config.weight_hidden_dim
        hidden = Activated(num_layers, in_dim, width, "gelu", has_norm=True, dropout=config.weight_dropout)
        self.hidden = MLP([hidden], StackedLinear(num_layers, width, width), has_residual=False)
        self.keys = StackedLinear(num_layers, width, out_dims[0])
        self.values = StackedLinear(num_layers, width, out_dims[1])
        self.features, self.temperature = config.weight_features, config.weight_temperature

    @abstractmethod
    def read(self, features: Tensor) -> Tensor:
        """(layers, tokens, kv_heads, features) to (layers, items, in)."""

    @abstractmethod
    def spread(self, logits: Tensor, num_heads: int) -> Tensor:
        """(layers, items, out) to what broadcasts to (layers, tokens, kv_heads, head_dim)."""

    def forward(self, receiver: PackedKV, projected: PackedKV) -> Weights:
        """Weights of keys and of values.

        Args:
            receiver: the receiver's entries.
            projected: what was projected for them.
        """
        features = torch.cat(FEATURES[self.features](receiver, projected), -1)
        hidden, num_heads = self.hidden(self.read(features)), features.shape[2]
        keys, values = (
            torch.sigmoid(self.spread(head(hidden), num_heads) / self.temperature) for head in (self.keys, self.values)
        )
        return keys, values


class MergedWeighting(ReadingWeighting):
    """Reads all heads of a token at once; one weight for the token (`token`), or for each head (`head_merged`)."""

    def read(self, features: Tensor) -> Tensor:
        """(layers, tokens, kv_heads, features) to (layers, tokens, kv_heads * features)."""
        return features.flatten(2)

    def spread(self, logits: Tensor, num_heads: int) -> Tensor:
        """(layers, tokens, 1 or kv_heads) to (layers, tokens, 1 or kv_heads, 1)."""
        return logits.unsqueeze(-1)


class SingleHeadWeighting(ReadingWeighting):
    """Reads each head for itself; one weight for it (`head`), or for each of its entries (`value`)."""

    def read(self, features: Tensor) -> Tensor:
        """(layers, tokens, kv_heads, features) to (layers, tokens * kv_heads, features)."""
        return features.flatten(1, 2)

    def spread(self, logits: Tensor, num_heads: int) -> Tensor:
        """(layers, tokens * kv_heads, 1 or head_dim) to (layers, tokens, kv_heads, 1 or head_dim)."""
        per_head: Tensor = logits.unflatten(1, (-1, num_heads))
        return per_head


class LearnedWeighting(nn.Module):
    """One learned weight for keys and one for values in each layer, whatever is read (`scalar`)."""

    def __init__(self, num_layers: int, config: ComplexConfig) -> None:
        """Start the weights of `num_layers` receiver layers."""
        super().__init__()
        self.keys = nn.Parameter(torch.full((num_layers,), config.weight_init))
        self.values = nn.Parameter(torch.full((num_layers,), config.weight_init))
        self.temperature = config.weight_temperature

    def forward(self, receiver: PackedKV, projected: PackedKV) -> Weights:
        """(layers, 1, 1, 1) each."""
        keys, values = (
            torch.sigmoid(logit / self.temperature)[:, None, None, None] for logit in (self.keys, self.values)
        )
        return keys, values


def build_weighting(num_layers: int, receiver: LayerGeometry, config: ComplexConfig) -> nn.Module:
    """The weighting that a configuration asks for.

    Args:
        num_layers: receiver layers in the stack.
        receiver: shape of these layers.
        config: the choices.
    """
    heads, width = receiver.kv_heads, features_width(config.weight_features, receiver)
    match config.weight_granularity:
        case "scalar":
            return LearnedWeighting(num_layers, config)
        case "token":
            return MergedWeighting(num_layers, heads * width, (1, 1), config)
        case "head_merged":
            return MergedWeighting(num_layers, heads * width, (heads, heads), config)
        case "head":
            return SingleHeadWeighting(num_layers, width, (1, 1), config)
        case "value":
            return SingleHeadWeighting(num_layers, width, (receiver.key_dim, receiver.value_dim), config)

"""The fuser kind `c2c_c` (paper, appendix A.1.3; the released code's `AllInOneProjector`).

The sharer's entries are projected to the receiver's width first. For keys, and for values alike:

    projected = combine([mlp(sharer), receiver])
    fused = receiver + gate * weight(receiver, projected) * projected

Keys and values share one weighting network and one gate.
Axes: L layers of the stack, F fused tokens, H KV heads, D head width.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.fuser.c2c_complex_config import ComplexKindConfig
from c2c_lightning.fuser.gate import Gate
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.stacked_linear import StackedLinear
from c2c_lightning.ops.stacked_norm import StackedLayerNorm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}

RESIDUALS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "whole": lambda added, receiver, weight: added,
    "rest": lambda added, receiver, weight: added - weight * receiver,
    "none": lambda added, receiver, weight: added - receiver,
}
"""By `receiver_share`: the residual from `gate * weight * projected`, the receiver's entries and their weights."""

FEATURES: dict[str, Callable[[PackedKV, PackedKV], list[Tensor]]] = {
    "key": lambda receiver, projected: [receiver.keys],
    "value": lambda receiver, projected: [receiver.values],
    "both": lambda receiver, projected: [receiver.keys, receiver.values],
    "projected_key": lambda receiver, projected: [receiver.keys, projected.keys],
    "projected_value": lambda receiver, projected: [receiver.values, projected.values],
    "projected_both": lambda receiver, projected: [receiver.keys, receiver.values, projected.keys, projected.values],
}
"""By `weight_features`: the inputs of the weighting, (L, F, H, D) each, from receiver and projected entries."""


class ActivatedLayer(nn.Module):
    """A hidden layer: `dropout(activation(norm(map(x))))`."""

    def __init__(self, num_layers: int, in_dim: int, config: ComplexKindConfig) -> None:
        """Build it for `num_layers` receiver layers."""
        super().__init__()
        self.map = StackedLinear(num_layers, in_dim, config.hidden_dim)
        self.norm = StackedLayerNorm(num_layers, config.hidden_dim) if config.layer_norm else nn.Identity()
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens hidden"]:
        """The hidden states."""
        hidden: Tensor = self.dropout(self.activation(self.norm(self.map(x))))
        return hidden


class SwiGLULayer(nn.Module):
    """A gated hidden layer: `dropout(norm(silu(gate(x)) * up(x)))`."""

    def __init__(self, num_layers: int, in_dim: int, config: ComplexKindConfig) -> None:
        """Build it for `num_layers` receiver layers."""
        super().__init__()
        self.gate = StackedLinear(num_layers, in_dim, config.hidden_dim)
        self.up = StackedLinear(num_layers, in_dim, config.hidden_dim)
        self.norm = StackedLayerNorm(num_layers, config.hidden_dim) if config.layer_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens hidden"]:
        """The hidden states."""
        hidden: Tensor = self.dropout(self.norm(F.silu(self.gate(x)) * self.up(x)))
        return hidden


class StackedMLP(nn.Module):
    """Hidden layers, an output map, and a residual where the widths are equal (the released `ModernMLP`)."""

    def __init__(self, num_layers: int, in_dim: int, out_dim: int, config: ComplexKindConfig) -> None:
        """Build it `config.num_layers` deep."""
        super().__init__()
        layer_class = SwiGLULayer if config.swiglu else ActivatedLayer
        in_dims = [in_dim, *[config.hidden_dim] * (config.num_layers - 1)]
        self.hidden = nn.Sequential(*(layer_class(num_layers, width, config) for width in in_dims[:-1]))
        self.output = StackedLinear(num_layers, in_dims[-1], out_dim)
        self.has_residual = config.residual and in_dim == out_dim

    def forward(self, x: Float[Tensor, "layers tokens in_dim"]) -> Float[Tensor, "layers tokens out_dim"]:
        """The output."""
        result: Tensor = self.output(self.hidden(x))
        return x + result if self.has_residual else result


class SharerProjection(nn.Module):
    """Keys, or values, of the sharer in the receiver's width, combined with the receiver's own."""

    def __init__(
        self, num_layers: int, receiver: tuple[int, int], sharer: tuple[int, int], config: ComplexKindConfig
    ) -> None:
        """Build it.

        Args:
            num_layers: receiver layers in the stack.
            receiver: KV heads and head width of the receiver.
            sharer: KV heads and head width of the sharer.
            config: the settings.
        """
        super().__init__()
        self.heads, out_dim = receiver, receiver[0] * receiver[1]
        self.mlp = StackedMLP(num_layers, sharer[0] * sharer[1], out_dim, config)
        self.combine = StackedLinear(num_layers, 2 * out_dim, out_dim) if config.concat else None

    def forward(
        self,
        receiver: Float[Tensor, "layers tokens heads width"],
        sharer: Float[Tensor, "layers tokens sharer_heads sharer_width"],
    ) -> Float[Tensor, "layers tokens heads width"]:
        """The projected entries."""
        projected: Tensor = self.mlp(sharer.flatten(2))
        if self.combine is not None:
            projected = self.combine(torch.cat([projected, receiver.flatten(2)], -1))
        per_head: Tensor = projected.unflatten(-1, self.heads)
        return per_head


class JointWeighting(nn.Module):
    """Weights in (0, 1) of keys and of values from one network: a shared MLP and a linear head each."""

    def __init__(self, num_layers: int, receiver: LayerGeometry, config: ComplexKindConfig) -> None:
        """Build it for `num_layers` receiver layers of one shape."""
        super().__init__()
        in_dim, out_dims = weighting_dims(receiver, config)
        self.features, self.temperature = config.weight_features, config.weight_temperature
        self.is_per_head = config.weight_granularity in ("head", "value")
        self.weights_per_token = 1 if config.weight_granularity == "token" else receiver.kv_heads
        hidden = ComplexKindConfig(
            swiglu=False,
            hidden_dim=config.weight_hidden_dim,
            num_layers=2,
            residual=False,
            dropout=config.weight_dropout,
        )
        self.hidden = StackedMLP(num_layers, in_dim, config.weight_hidden_dim, hidden)
        self.keys, self.values = (StackedLinear(num_layers, config.weight_hidden_dim, width) for width in out_dims)

    def forward(self, receiver: PackedKV, projected: PackedKV) -> tuple[Tensor, Tensor]:
        """Weights of keys and of values, broadcastable to (L, F, H, D)."""
        features = torch.cat(FEATURES[self.features](receiver, projected), -1)
        # One input per head (L, F * H, features), or one per token (L, F, H * features).
        hidden = self.hidden(features.flatten(1, 2) if self.is_per_head else features.flatten(2))
        shape = (*features.shape[:2], self.weights_per_token)
        keys, values = (torch.sigmoid(_per_head(head(hidden), shape) / self.temperature) for head in self._heads)
        return keys, values

    @property
    def _heads(self) -> tuple[nn.Module, nn.Module]:
        return self.keys, self.values


def _per_head(logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weight logits as (L, F, 1 or H, 1 or D)."""
    count = shape[1] * shape[2]
    return logits.reshape(*shape, logits.shape[1] * logits.shape[2] // count if count else 1)


def weighting_dims(receiver: LayerGeometry, config: ComplexKindConfig) -> tuple[int, tuple[int, int]]:
    """Width of one input of `JointWeighting`, and how many weights it gives for keys and for values."""
    heads, one = (
        receiver.kv_heads,
        PackedKV(torch.empty(1, 1, 1, receiver.key_dim), torch.empty(1, 1, 1, receiver.value_dim)),
    )
    width = sum(part.shape[-1] for part in FEATURES[config.weight_features](one, one))
    by_granularity = {
        "token": (heads * width, (1, 1)),
        "head_merged": (heads * width, (heads, heads)),
        "head": (width, (1, 1)),
        "value": (width, (receiver.key_dim, receiver.value_dim)),
    }
    return by_granularity[config.weight_granularity]


class LearnedWeighting(nn.Module):
    """One learned weight for keys and one for values in each layer (`scalar`)."""

    def __init__(self, num_layers: int, config: ComplexKindConfig) -> None:
        """Build it for `num_layers` receiver layers."""
        super().__init__()
        self.keys, self.values = (nn.Parameter(torch.full((num_layers,), config.weight_init)) for _ in range(2))
        self.temperature = config.weight_temperature

    def forward(self, receiver: PackedKV, projected: PackedKV) -> tuple[Tensor, Tensor]:
        """(L, 1, 1, 1) each, independent of the entries."""
        keys, values = (
            torch.sigmoid(logit / self.temperature)[:, None, None, None] for logit in (self.keys, self.values)
        )
        return keys, values


@register_kind("c2c_c")
class ComplexKind(FuserKind):
    """C2C-C."""

    config_class = ComplexKindConfig

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: ComplexKindConfig,
        new_gate: NewGate,
    ) -> None:
        """Build the fusers of `pairs` of receiver and sharer layers."""
        super().__init__(pairs)
        layers, self.shape = len(pairs), receiver
        heads, sharer_heads = receiver.kv_heads, sharer.kv_heads
        self.keys = SharerProjection(layers, (heads, receiver.key_dim), (sharer_heads, sharer.key_dim), config)
        self.values = SharerProjection(layers, (heads, receiver.value_dim), (sharer_heads, sharer.value_dim), config)
        is_learned = config.weight_granularity == "scalar"
        self.weighting = LearnedWeighting(layers, config) if is_learned else JointWeighting(layers, receiver, config)
        self.gate = new_gate(layers)
        self.residual_of = RESIDUALS[config.receiver_share]

    @property
    def gates(self) -> list[Gate]:
        """One per layer, of keys and values together."""
        return [self.gate, self.gate]

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`."""
        projected = PackedKV(self.keys(receiver.keys, sharer.keys), self.values(receiver.values, sharer.values))
        key_weight, value_weight = self.weighting(receiver, projected)
        keys = self.gate(noise[0]) * key_weight * projected.keys
        values = self.gate(noise[1]) * value_weight * projected.values
        return PackedKV(
            self.residual_of(keys, receiver.keys, key_weight), self.residual_of(values, receiver.values, value_weight)
        )

    def draw_uniform(self, num_layers: int, batch: int, tokens: int) -> tuple[Tensor, Tensor]:
        """One number per entry of a head, the same for keys and values, in the order of the released code."""
        heads, width = self.shape.kv_heads, max(self.shape.key_dim, self.shape.value_dim)
        logit = self.gate.logit
        draws = torch.rand(num_layers, batch, heads, tokens, width, device=logit.device, dtype=logit.dtype)
        return draws[..., : self.shape.key_dim], draws[..., : self.shape.value_dim]

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: ComplexKindConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        maps = LinearMaps()
        for own, theirs in ((receiver.key_dim, sharer.key_dim), (receiver.value_dim, sharer.value_dim)):
            out_dim = receiver.kv_heads * own
            widths = [sharer.kv_heads * theirs, *[config.hidden_dim] * (config.num_layers - 1), out_dim]
            first, *others = pairwise(widths)
            twice = 2 if config.swiglu else 1
            maps.first += [first] * (twice if others else 1)
            maps.other += [pair for pair in others[:-1] for _ in range(twice)] + others[-1:]
            maps.other += [(2 * out_dim, out_dim)] * config.concat
        if config.weight_granularity != "scalar":
            in_dim, out_dims = weighting_dims(receiver, config)
            width = config.weight_hidden_dim
            inputs = receiver.kv_heads if config.weight_granularity in ("head", "value") else 1
            reads_caches = not config.weight_features.startswith("projected_")
            (maps.first if reads_caches else maps.other).extend([(in_dim, width)] * inputs)
            maps.other += [(width, width), *((width, out) for out in out_dims)] * inputs
        return maps

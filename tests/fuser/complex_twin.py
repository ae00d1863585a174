"""C2C-C for one layer, slowly and plainly: every token of every row, nothing packed or stacked.

Written from the paper's description and the released class's formulas, not from our modules.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from c2c_lightning.fuser.c2c_complex import ComplexKind, StackedMLP
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.ops.stacked_linear import StackedLinear

Cache = tuple[Tensor, Tensor]
"""Keys and values, (batch, kv_heads, tokens, head_dim)."""

ACTIVATIONS = {"gelu": nn.GELU(), "relu": nn.ReLU(), "silu": nn.SiLU()}


class TwinMLP(nn.Module):
    """Linear maps with a nonlinearity between them."""

    def __init__(self, widths: Sequence[int], activation: str, norm: bool, swiglu: bool, residual: bool) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.ups = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths[:-1]))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:-1])
        self.activation, self.norm, self.swiglu = ACTIVATIONS[activation], norm, swiglu
        self.residual = residual and widths[0] == widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i, linear in enumerate(self.maps[:-1]):
            h = torch.sigmoid(linear(h)) * linear(h) * self.ups[i](h) if self.swiglu else linear(h)
            h = self.norms[i](h) if self.norm else h
            h = h if self.swiglu else self.activation(h)
        h = self.maps[-1](h)
        return x + h if self.residual else h


class Twin(nn.Module):
    """One receiver layer."""

    def __init__(self, receiver: tuple[int, int], sharer: tuple[int, int], config: FuserConfig) -> None:
        super().__init__()
        self.config, self.c = config, config.complex
        (self.heads, self.dim), read = receiver, sharer[0] * sharer[1]
        out, width = self.heads * self.dim, self.c.weight_hidden_dim
        widths = [read, *[config.hidden_dim] * (config.num_layers - 1), out]
        choices = (self.c.activation, self.c.layer_norm, self.c.swiglu, self.c.residual)
        self.key_mlp, self.value_mlp = TwinMLP(widths, *choices), TwinMLP(widths, *choices)
        self.key_combiner, self.value_combiner = nn.Linear(2 * out, out), nn.Linear(2 * out, out)
        parts = {"key": 1, "value": 1, "both": 2, "projected_key": 2, "projected_value": 2, "projected_both": 4}
        merged = self.heads if self.c.weight_granularity in ("token", "head_merged") else 1
        num_weights = {"head_merged": self.heads, "value": self.dim}.get(self.c.weight_granularity, 1)
        self.weight_mlp = TwinMLP(
            [parts[self.c.weight_features] * self.dim * merged, width, width], "gelu", True, False, False
        )
        self.key_head, self.value_head = nn.Linear(width, num_weights), nn.Linear(width, num_weights)
        self.key_weight, self.value_weight = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.gate_logit = nn.Parameter(torch.zeros(()))

    def forward(self, sharer: Cache, receiver: Cache, uniform: Tensor | None, temperature: float) -> Cache:
        """Fused keys and values; `uniform` is (batch, kv_heads, tokens, head_dim), None in evaluation."""
        key = self.project(sharer[0], receiver[0], self.key_mlp, self.key_combiner)
        value = self.project(sharer[1], receiver[1], self.value_mlp, self.value_combiner)
        weights = [torch.sigmoid(w / self.c.weight_temperature) for w in self.weigh(*receiver, key, value)]
        if uniform is None:
            gate = (self.gate_logit > 0).float()
        else:
            gumbel = -torch.log(-torch.log(uniform + 1e-20) + 1e-20)
            gate = torch.sigmoid((self.gate_logit + gumbel) / temperature)
        fused = []
        for mine, weight, projected in zip(receiver, weights, (key, value), strict=True):
            kept = {"whole": mine, "rest": (1 - weight) * mine, "none": 0 * mine}[self.c.receiver_share]
            fused.append(kept + gate * weight * projected)
        return fused[0], fused[1]

    def project(self, sharer: Tensor, receiver: Tensor, mlp: nn.Module, combiner: nn.Module) -> Tensor:
        batch, _, tokens, _ = sharer.shape
        projected = mlp(sharer.transpose(1, 2).reshape(batch, tokens, -1))
        if self.c.concat:
            projected = combiner(torch.cat([projected, receiver.transpose(1, 2).reshape(batch, tokens, -1)], -1))
        return projected.view(batch, tokens, self.heads, self.dim).transpose(1, 2)

    def weigh(self, key: Tensor, value: Tensor, projected_key: Tensor, projected_value: Tensor) -> list[Tensor]:
        if self.c.weight_granularity == "scalar":
            return [self.key_weight, self.value_weight]
        # (batch, kv_heads, tokens, features)
        features = {
            "key": key,
            "value": value,
            "both": torch.cat([key, value], -1),
            "projected_key": torch.cat([key, projected_key], -1),
            "projected_value": torch.cat([value, projected_value], -1),
            "projected_both": torch.cat([key, value, projected_key, projected_value], -1),
        }[self.c.weight_features]
        batch, _, tokens, _ = features.shape
        if self.c.weight_granularity in ("head", "value"):
            hidden = self.weight_mlp(features)
            return [self.key_head(hidden), self.value_head(hidden)]
        hidden = self.weight_mlp(features.transpose(1, 2).reshape(batch, tokens, -1))
        # (batch, tokens, 1 or kv_heads) to (batch, 1 or kv_heads, tokens, 1)
        return [head(hidden).transpose(1, 2).unsqueeze(-1) for head in (self.key_head, self.value_head)]


def same_weights(group: ComplexKind, twin: Twin) -> Iterator[tuple[str, Tensor, nn.Parameter]]:
    """Name, our stacked parameter and the twin's, whose layer it should equal; of everything the fuser has."""
    for side in ("key", "value"):
        ours = getattr(group, f"{side}s")
        yield from same_mlp(ours.mlp, getattr(twin, f"{side}_mlp"))
        if ours.combine is not None:
            yield from same_linear(ours.combine, getattr(twin, f"{side}_combiner"))
        head = getattr(group.weighting, f"{side}s")
        if isinstance(head, nn.Parameter):
            yield "scalar", head, getattr(twin, f"{side}_weight")
        else:
            yield from same_linear(head, getattr(twin, f"{side}_head"))
    if hasattr(group.weighting, "hidden"):
        yield from same_mlp(group.weighting.hidden, twin.weight_mlp)
    yield "scalar", group.gate.logit, twin.gate_logit


def same_linear(ours: StackedLinear, twin: nn.Linear) -> Iterator[tuple[str, Tensor, nn.Parameter]]:
    yield "matrix", ours.weight, twin.weight
    yield "vector", ours.bias, twin.bias


def same_mlp(ours: StackedMLP, twin: TwinMLP) -> Iterator[tuple[str, Tensor, nn.Parameter]]:
    for i, hidden in enumerate(ours.hidden):
        if twin.swiglu:
            yield from same_linear(hidden.gate, twin.maps[i])
            yield from same_linear(hidden.up, twin.ups[i])
        else:
            yield from same_linear(hidden.map, twin.maps[i])
        if twin.norm:
            yield "vector", hidden.norm.weight, twin.norms[i].weight
            yield "vector", hidden.norm.bias, twin.norms[i].bias
    yield from same_linear(ours.output, twin.maps[-1])


def layer_of(form: str, stacked: Tensor, place: int) -> Tensor:
    """One layer of our parameter in the shape of the twin's."""
    return {"scalar": lambda t: t, "vector": lambda t: t[0], "matrix": lambda t: t.T}[form](stacked[place])

"""The fuser kind `ridge`: a linear map in closed form from the sharer's cache to the receiver's (after 2608.03893).

    fused = W [sharer entries of the k source layers] + b

W and b minimise the squared error to the receiver's own entries on paired caches of the same text, plus a multiple of
|W|^2. The source layers of each receiver layer are those that predict its entries best on held-out tokens. Keys should
be position-free: use it within `rotary_free`.

Axes: L layers of the stack, k source layers, F tokens, S candidate layers of the sharer, H KV heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.errors import FuserConfigError, FuserFormatError
from c2c_lightning.fuser.config_checks import check_fields, check_range
from c2c_lightning.fuser.kind import FuserKind, GateNoise, LinearMaps, NewGate, register_kind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.ridge_regression import best_sources, main_outputs, probe_scores, ridge_solution
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.ops.stacked_linear import FactoredLinear, StackedLinear


@dataclass(frozen=True)
class RidgeConfig:
    """Settings of a ridge map.

    Attributes:
        num_sources: source layers k of each receiver layer.
        map_rank: largest rank of the map of keys and of that of values; default unbounded.
        regularisation: multiple of the mean squared feature that is added to the diagonal.
        num_tokens: tokens of paired caches that it is fitted on.
        trainable: whether training goes on after the fit; otherwise `lightning fit` ends with it.
    """

    num_sources: int = 3
    map_rank: int | None = None
    regularisation: float = 0.01
    num_tokens: int = 4096
    trainable: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("num_sources",), 1, 1000)
        check_range(self, ("num_tokens",), 16, 10**8)
        check_range(self, ("map_rank",) if self.map_rank is not None else (), 1, 2**20)
        if self.regularisation <= 0:
            raise FuserConfigError(f"regularisation is {self.regularisation}, but must be above 0.")


@register_kind("ridge")
class RidgeKind(FuserKind):
    """The map; it is fitted by `fit_closed_form`, and useless before.

    Attributes:
        sources: (L, k), the source layers, as numbers because fuser files hold floating-point tensors only.
    """

    config_class = RidgeConfig
    reads_receiver = False
    sources: Tensor

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        receiver: LayerGeometry,
        sharer: LayerGeometry,
        config: RidgeConfig,
        new_gate: NewGate,
    ) -> None:
        """Build it for `pairs` of receiver and sharer layers; the sharer layers are the first guess of the sources.

        Raises:
            FuserConfigError: the rank is larger than one side of a map.
        """
        super().__init__(pairs)
        self.config = config
        self.keys, self.values = (self._map(len(pairs), *shape) for shape in _shapes(receiver, sharer, config))
        device = next(self.parameters()).device
        first = torch.tensor([[float(m)] * config.num_sources for _, m in pairs], device=device)
        self.register_buffer("sources", first)
        self.register_load_state_dict_post_hook(take_saved_sources)  # type: ignore[no-untyped-call]
        self.take_sources([m for _, m in pairs for _ in range(config.num_sources)])
        self.requires_grad_(config.trainable)

    def _map(self, num_layers: int, in_dim: int, out_dim: int) -> StackedLinear | FactoredLinear:
        rank = self.config.map_rank
        if rank is None:
            return StackedLinear(num_layers, in_dim, out_dim)
        if rank > min(in_dim, out_dim):
            raise FuserConfigError(
                f"map_rank is {rank}, but a map from {in_dim} to {out_dim} dimensions has rank {min(in_dim, out_dim)} "
                "at most. Set a smaller one, or none."
            )
        return FactoredLinear(num_layers, in_dim, rank, out_dim)

    @property
    def closed_form_tokens(self) -> int:
        """See `FuserKind.closed_form_tokens`."""
        return self.config.num_tokens

    def take_sources(self, layers: Sequence[int]) -> None:
        """Read other sharer layers: k for each layer of the stack."""
        self.sharer_layers = list(layers)

    def residual(self, receiver: PackedKV, sharer: PackedKV, noise: GateNoise) -> PackedKV:
        """See `FuserKind.residual`: the map replaces the receiver's entries."""
        keys = self.keys(self._features(sharer.keys)).view_as(receiver.keys)
        values = self.values(self._features(sharer.values)).view_as(receiver.values)
        return PackedKV(keys - receiver.keys, values - receiver.values)

    def _features(self, entries: Float[Tensor, "Lk F H D"]) -> Float[Tensor, "L F kHD"]:
        """The entries of all source layers of one token side by side."""
        by_layer = entries.flatten(2).unflatten(0, (-1, self.config.num_sources))
        features: Tensor = by_layer.transpose(1, 2).flatten(2)
        return features

    @torch.no_grad()
    def fit_closed_form(self, receiver: PackedKV, sharer: PackedKV, candidates: Sequence[int]) -> None:
        """Choose source layers and solve for the map, in float64.

        Args:
            receiver: the receiver's entries, (L, F, H, D).
            sharer: the entries of the candidates, (S, F, H, D).
            candidates: their layer numbers.

        Raises:
            FuserConfigError: fewer candidates than `num_sources`, or too few tokens.
        """
        tokens = receiver.keys.shape[1]
        if tokens < 16:
            raise FuserConfigError(f"a ridge map cannot be fitted on {tokens} tokens. Give more rows of training data.")
        sides = [(receiver.keys, sharer.keys, self.keys), (receiver.values, sharer.values, self.values)]
        scores = sum(probe_scores(x.flatten(2), y.flatten(2), self.config.regularisation) for y, x, _ in sides)
        assert isinstance(scores, Tensor)
        chosen = best_sources(scores, self.config.num_sources)  # (L, k) among the candidates
        for n, of_layer in enumerate(chosen):
            for target, source, linear in sides:
                features = source[of_layer].flatten(2).transpose(0, 1).flatten(1)
                _solve(linear, n, features, target[n].flatten(1), self.config.regularisation)
        layers = torch.tensor(list(candidates))[chosen.cpu()]
        self.sources.copy_(layers)
        self.take_sources(layers.flatten().tolist())

    @classmethod
    def linear_maps(cls, receiver: LayerGeometry, sharer: LayerGeometry, config: RidgeConfig) -> LinearMaps:
        """See `FuserKind.linear_maps`."""
        shapes, rank = _shapes(receiver, sharer, config), config.map_rank
        if rank is None:
            return LinearMaps(shapes)
        return LinearMaps([(read, rank) for read, _ in shapes], [(rank, written) for _, written in shapes])


def _shapes(receiver: LayerGeometry, sharer: LayerGeometry, config: RidgeConfig) -> list[tuple[int, int]]:
    """Inputs and outputs of the map of keys and of that of values."""
    k, mine, theirs = config.num_sources, receiver.kv_heads, sharer.kv_heads
    dims = ((receiver.key_dim, sharer.key_dim), (receiver.value_dim, sharer.value_dim))
    return [(k * theirs * other, mine * own) for own, other in dims]


def _solve(
    linear: StackedLinear | FactoredLinear, layer: int, features: Tensor, targets: Tensor, regularisation: float
) -> None:
    """Set the map of one layer of a stack to the least-squares solution of its rank."""
    weight, bias = ridge_solution(features, targets, regularisation)
    last = linear
    if isinstance(linear, FactoredLinear):
        basis = main_outputs(features, targets, weight, linear.up.weight.shape[1])
        linear.down.weight[layer].copy_(weight @ basis)
        weight, last = basis.T, linear.up
        bias = targets.double().mean(0) - features.double().mean(0) @ linear.down.weight[layer].double() @ weight
    assert isinstance(last, StackedLinear)
    assert last.bias is not None
    last.weight[layer].copy_(weight)
    last.bias[layer, 0].copy_(bias)


def take_saved_sources(kind: Any, keys: Any) -> None:
    """After loading: the source layers of the file."""
    layers = kind.sources.flatten().tolist()
    if any(layer != int(layer) or not 0 <= layer < 10_000 for layer in layers):
        raise FuserFormatError("the source layers of a ridge map are no layer numbers: the fuser file was changed.")
    kind.take_sources([int(layer) for layer in layers])

"""The closed-form linear map: the least-squares solution, its source layers, and the fuser that it makes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.errors import FuserConfigError, FuserFormatError
from c2c_lightning.export import load_fuser
from c2c_lightning.export.description import FuserDescription, ModelReference
from c2c_lightning.export.format import save_fuser
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.ridge import RidgeKind
from c2c_lightning.fuser.ridge_regression import main_outputs, ridge_solution
from tests.fuser.kinds import RECEIVER, SHARER, STEP, OneToken, check_finite_differences, check_twin, entries_of, make

CANDIDATES = [0, 1, 2, 3]
TRUE = {0: (0, 2), 1: (1, 3), 2: (0, 3)}
"""For each receiver layer the sharer layers that its entries really depend on."""


def ridge(**options: Any) -> Fuser:
    torch.manual_seed(0)
    config = FuserConfig(kind="ridge", options={"num_sources": 2, "regularisation": 1e-6, **options})
    return Fuser(RECEIVER, [SHARER], config).eval()


def paired(tokens: int = 200) -> tuple[PackedKV, PackedKV]:
    """Receiver entries that are linear in two sharer layers each."""
    g = torch.Generator().manual_seed(1)
    sharer = [torch.randn(4, tokens, 3, 6, generator=g) for _ in "kv"]
    sides = []
    for entries in sharer:
        maps = [[torch.randn(18, 8, generator=g) for _ in sources] for sources in TRUE.values()]
        layers = [
            sum((entries[m].flatten(1) @ w for m, w in zip(sources, weights, strict=True)), torch.ones(8))
            for sources, weights in zip(TRUE.values(), maps, strict=True)
        ]
        sides.append(torch.stack(layers).unflatten(-1, (2, 4)))
    return PackedKV(*sides), PackedKV(*sharer)


def group_of(fuser: Fuser) -> RidgeKind:
    group = fuser.sharers[0].groups[0]
    assert isinstance(group, RidgeKind)
    return group


def test_the_solution_is_that_of_the_normal_equations() -> None:
    x, y = torch.randn(50, 3).double(), torch.randn(50, 2).double()
    weight, bias = ridge_solution(x, y, 0.1)
    centred = x - x.mean(0)
    penalty = 0.1 * (centred.T @ centred).diagonal().mean()

    def loss(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (x @ w + b - y).square().sum() + penalty * w.square().sum()

    least = loss(weight, bias)
    for _ in range(20):
        assert loss(weight + 1e-3 * torch.randn_like(weight), bias + 1e-3 * torch.randn_like(bias)) > least


def test_the_fit_finds_sources_and_map() -> None:
    fuser = ridge()
    mine, theirs = paired()
    group = group_of(fuser)
    group.fit_closed_form(mine, theirs, CANDIDATES)
    assert group.sharer_layers == [m for sources in TRUE.values() for m in sources]
    assert fuser.sharers[0].num_sharer_layers == 4
    chosen = torch.tensor(group.sharer_layers)
    residual = group.residual(
        PackedKV(0 * mine.keys, 0 * mine.values), PackedKV(theirs.keys[chosen], theirs.values[chosen]), (None, None)
    )
    torch.testing.assert_close(residual.keys, mine.keys, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(residual.values, mine.values, atol=1e-3, rtol=1e-3)


def test_the_map_replaces_the_receivers_entries() -> None:
    fuser = make(kind="ridge", options={"num_sources": 1, "trainable": True})

    def slow_residual(part: Any, place: int, receiver: OneToken, sharer: OneToken) -> OneToken:
        mapped = [
            (s.flatten() @ m.weight[place] + m.bias[place, 0]).view_as(r)
            for s, r, m in zip(sharer, receiver, (part.keys, part.values), strict=True)
        ]
        return mapped[0] - receiver[0], mapped[1] - receiver[1]

    check_twin(fuser, slow_residual)
    check_finite_differences(fuser)


def test_a_bounded_rank_is_the_best_one() -> None:
    """With uncorrelated features it is the truncated singular value decomposition (Eckart-Young)."""
    g = torch.Generator().manual_seed(4)
    x = torch.randn(60, 7, generator=g).double()
    x, _ = torch.linalg.qr(x - x.mean(0))  # centred and orthonormal
    true = torch.randn(7, 5, generator=g).double()
    weight, _ = ridge_solution(x, x @ true, 1e-12)
    basis = main_outputs(x, x @ true, weight, 2)
    u, s, v = torch.linalg.svd(true)
    torch.testing.assert_close(weight @ basis @ basis.T, u[:, :2] @ torch.diag(s[:2]) @ v[:2], atol=1e-6, rtol=1e-6)


def test_a_sufficient_rank_is_the_full_map() -> None:
    full, factored, (mine, theirs) = ridge(), ridge(map_rank=8), paired()
    residuals = []
    for fuser in (full, factored):
        group = group_of(fuser)
        group.fit_closed_form(mine, theirs, CANDIDATES)
        chosen = torch.tensor(group.sharer_layers)
        residuals.append(group.residual(mine, PackedKV(theirs.keys[chosen], theirs.values[chosen]), (None, None)))
    torch.testing.assert_close(residuals[0].keys, residuals[1].keys, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(residuals[0].values, residuals[1].values, atol=1e-4, rtol=1e-4)
    maps = RidgeKind.linear_maps(RECEIVER.layers[0], SHARER.layers[0], group_of(factored).config)
    weights = sum(a * b for a, b in maps.first + maps.other)
    assert weights == sum(p[0].numel() for name, p in group_of(factored).named_parameters() if "weight" in name)


def test_gradients_of_a_factored_map_are_finite_differences() -> None:
    check_finite_differences(make(kind="ridge", options={"num_sources": 1, "map_rank": 3, "trainable": True}))


def test_one_layer_at_a_time_is_the_stack() -> None:
    fuser = ridge()
    group_of(fuser).fit_closed_form(*paired(), CANDIDATES)
    mine, theirs = entries_of(RECEIVER, 3, 1), entries_of(SHARER, 3, 2)
    step = FusionStep(0, 3, (FusedTokens.all_tokens(2, 3, torch.device("cpu")),))
    split = fuser.split()
    for n, together in enumerate(fuser(mine, [theirs], step)):
        torch.testing.assert_close(split.fuse_new(n, mine[n], [theirs]).keys, together.keys, atol=1e-4, rtol=1e-4)


def test_round_trip_keeps_the_sources(tmp_path: Path) -> None:
    fuser = ridge()
    group_of(fuser).fit_closed_form(*paired(), CANDIDATES)
    models = ModelReference("receiver", RECEIVER), (ModelReference("sharer", SHARER),)
    save_fuser(tmp_path / "fuser", fuser, FuserDescription(fuser.config, *models))
    again = load_fuser(tmp_path / "fuser").fuser
    assert group_of(again).sharer_layers == group_of(fuser).sharer_layers
    mine, theirs = entries_of(RECEIVER, 5, 1), entries_of(SHARER, 6, 2)
    for a, b in zip(fuser(mine, [theirs], STEP), again(mine, [theirs], STEP), strict=True):
        assert torch.equal(a.keys, b.keys)


def test_it_is_trained_only_if_asked() -> None:
    assert not any(p.requires_grad for p in ridge().parameters())
    assert all(p.requires_grad for p in ridge(trainable=True).parameters())


def test_impossible_values_are_named() -> None:
    mine, theirs = paired(40)
    with pytest.raises(FuserConfigError, match="the sharer has only 4 layers"):
        group_of(ridge(num_sources=5)).fit_closed_form(mine, theirs, CANDIDATES)
    few = PackedKV(mine.keys[:, :3], mine.values[:, :3]), PackedKV(theirs.keys[:, :3], theirs.values[:, :3])
    with pytest.raises(FuserConfigError, match="cannot be fitted on 3 tokens"):
        group_of(ridge()).fit_closed_form(*few, CANDIDATES)
    with pytest.raises(FuserConfigError, match="a map from 36 to 8 dimensions has rank 8 at most"):
        ridge(map_rank=9)
    with pytest.raises(FuserConfigError, match="map_rank is 0, but must be at least 1"):
        ridge(map_rank=0)
    with pytest.raises(FuserConfigError, match="regularisation is 0"):
        ridge(regularisation=0.0)
    state = {**ridge().state_dict(), "sharers.0.groups.0.sources": torch.full((3, 2), 0.5)}
    with pytest.raises(FuserFormatError, match="no layer numbers"):
        ridge().load_state_dict(state)

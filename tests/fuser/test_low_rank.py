"""The low-rank fuser: stacked and packed against a plain twin, its published sizes, and the values it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.low_rank import LowRankConfig, LowRankKind
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from tests.fuser.kinds import HYBRID, RECEIVER, OneToken, check_finite_differences, check_twin, make

PAPER = KVGeometry((LayerGeometry(8, 128, 128),) * 28), KVGeometry((LayerGeometry(2, 64, 64),) * 24)
"""Qwen3-0.6B and Qwen2.5-0.5B."""


def low_rank(receiver: KVGeometry = RECEIVER, **options: Any) -> Fuser:
    return make(receiver, kind="low_rank", options={"rank": 4, "expansion": 3, "dropout": 0.0, **options})


def slow_residual(part: LowRankKind, place: int, receiver: OneToken, sharer: OneToken) -> OneToken:
    """One token of one layer, written out."""

    def linear(x: Tensor, m: Any) -> Tensor:
        return x @ m.weight[place] + (0 if m.bias is None else m.bias[place, 0])

    z = torch.cat([x.flatten() for x in (*sharer, *receiver)])
    z = linear(z, part.down)
    for block in part.blocks:
        norm = z / torch.sqrt(z.pow(2).mean() + 1e-6) * block.norm.weight[place, 0]
        inner = linear(norm, block.w1)
        z = z + linear(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), block.w2)
    half, heads = len(z) // 2, len(receiver[0])
    weights = torch.sigmoid(linear(z, part.weighting))
    keys = linear(z[:half], part.up_keys).view_as(receiver[0]) * weights[:heads, None]
    return keys, linear(z[half:], part.up_values).view_as(receiver[1]) * weights[heads:, None]


@pytest.mark.parametrize("receiver", [RECEIVER, HYBRID], ids=["uniform", "hybrid"])
def test_stacked_fuser_is_the_slow_twin(receiver: KVGeometry) -> None:
    check_twin(low_rank(receiver), slow_residual)


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_gradients_are_finite_differences(num_blocks: int) -> None:
    check_finite_differences(low_rank(num_blocks=num_blocks))


@pytest.mark.parametrize(("rank", "per_layer", "in_all"), [(128, "693 K", "19.4 M"), (256, "1907 K", "53.4 M")])
def test_published_sizes(rank: int, per_layer: str, in_all: str) -> None:
    receiver, sharer = PAPER
    with torch.device("meta"):
        fuser = Fuser(receiver, [sharer], FuserConfig(kind="low_rank", options={"rank": rank}))
    count = sum(p.numel() for p in fuser.parameters())
    assert f"{count / 28e3:.0f} K" == per_layer
    assert f"{count / 1e6:.1f} M" == in_all


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 18}, "have 8 dimensions together. Set rank to at most 16"),
        ({"rank": 3}, "rank is 3, but must be even"),
        ({"rank": 0}, "rank is 0, but must be at least 2"),
        ({"expansion": 0}, "expansion is 0, but must be at least 1"),
        ({"num_blocks": -1}, "num_blocks is -1"),
        ({"dropout": 1.0}, "dropout is 1.0, but must be in"),
        ({"ranks": 4}, r"unknown 'low_rank' settings \['ranks'\]. Did you mean 'rank'"),
    ],
    ids=str,
)
def test_impossible_sizes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        low_rank(**options)


def test_default_dropout_is_that_of_the_other_kinds() -> None:
    ((_, settings),) = FuserConfig(kind="low_rank", dropout=0.25).kinds(1)
    assert settings == LowRankConfig(dropout=0.25)

"""The kind `hub`: stacked and packed against a plain twin, its gradients, its operations, and the values it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.hub_kind import HubKind
from c2c_lightning.kv.geometry import KVGeometry
from tests.fuser.kinds import HYBRID, RECEIVER, SHARER, OneToken, check_finite_differences, check_twin, make
from tests.fuser.test_low_rank import slow_residual as slow_low_rank

LATENT = {"latent_layers": 3, "latent_dim": 5}


def hub(receiver: KVGeometry = RECEIVER, **options: Any) -> Fuser:
    inner = {"kind": "low_rank", "rank": 4, "expansion": 3, "dropout": 0.0}
    return make(receiver, kind="hub", options={**LATENT, **inner, **options})


def slow_residual(part: HubKind, place: int, receiver: OneToken, sharer: OneToken) -> OneToken:
    """One token of one layer, written out."""
    keys, values = (slow_latent(part, side, place, x) for side, x in zip(("keys", "values"), sharer, strict=True))
    return slow_low_rank(part.inner, place, receiver, (keys, values))  # type: ignore[arg-type]


def slow_latent(part: HubKind, side: str, place: int, entries: Tensor) -> Tensor:
    encoder: Any = getattr(part.encoder, side)
    x = entries.flatten() @ encoder.input.weight[place] + encoder.input.bias[place, 0]
    for block in encoder.blocks:
        inner = rms(x) * block.norm.weight[place, 0] @ block.w1.weight[place]
        x = x + inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))) @ block.w2.weight[place]
    return (rms(x) * encoder.norm.weight[place, 0])[None]


def rms(x: Tensor) -> Tensor:
    return x / torch.sqrt(x.pow(2).mean() + 1e-6)


@pytest.mark.parametrize("receiver", [RECEIVER, HYBRID], ids=["uniform", "hybrid"])
@pytest.mark.parametrize("encoder_blocks", [0, 2])
def test_stacked_fuser_is_the_slow_twin(receiver: KVGeometry, encoder_blocks: int) -> None:
    check_twin(hub(receiver, encoder_blocks=encoder_blocks), slow_residual)


@pytest.mark.parametrize("kind", ["c2c", "low_rank"])
def test_gradients_are_finite_differences(kind: str) -> None:
    options = {"rank": 4, "num_blocks": 1} if kind == "low_rank" else {}
    check_finite_differences(make(kind="hub", options={**LATENT, "kind": kind, "dropout": 0.0, **options}))


def test_counted_maps_are_the_linear_weights() -> None:
    group = hub(encoder_blocks=2).sharers[0].groups[0]
    maps = HubKind.linear_maps(RECEIVER.layers[0], SHARER.layers[0], hub(encoder_blocks=2).sharers[0].kind_config)
    weights = sum(p[0].numel() for n, p in group.named_parameters() if n.endswith("weight") and "norm" not in n)
    assert sum(a * b for a, b in maps.first + maps.other) == weights


def test_norms_of_encoder_and_decoder_are_norm_parameters() -> None:
    fuser = hub()
    norms = {id(parameter) for parameter in fuser.parameter_roles().norms}
    assert norms == {id(parameter) for name, parameter in fuser.named_parameters() if "norm" in name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim is 0, but must be at least 1"),
        ({"latent_layers": 0}, "latent_layers is 0"),
        ({"encoder_blocks": -1}, "encoder_blocks is -1"),
        ({"encoder_dropout": 1.0}, "encoder_dropout is 1.0"),
        ({"ranks": 4}, r"unknown 'hub' or 'low_rank' settings \['ranks'\]. Did you mean 'rank'"),
        ({"kind": "hub"}, "cannot contain 'hub'"),
        ({"kind": "rotary_free"}, "cannot contain 'rotary_free'"),
        ({"kind": "memory"}, "cannot contain 'memory'"),
        ({"kind": "ridge"}, "cannot contain 'ridge'"),
    ],
    ids=str,
)
def test_impossible_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        FuserConfig(kind="hub", options={**LATENT, "kind": "low_rank", **options})

"""C2C-C: stacked and packed against a plain twin, and as a fuser like any other."""

from typing import Any

import pytest
import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.c2c_complex_config import ComplexConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.training.compile_fuser import compile_fuser
from c2c_lightning.training.optim import ParameterGroups
from tests.fuser.complex_twin import Twin, layer_of, same_weights
from tests.fuser.several import check_order

HEADS, SHARER_HEADS = (2, 4), (3, 5)
RECEIVER = KVGeometry((LayerGeometry(2, 4, 4),) * 3)
SHARER = KVGeometry((LayerGeometry(3, 5, 5),) * 4)
# As wide as the receiver, with other heads.
WIDE_SHARER = KVGeometry((LayerGeometry(1, 8, 8),) * 4)
HYBRID = KVGeometry((LayerGeometry(2, 4, 4), LayerGeometry(1, 6, 3), LayerGeometry(2, 4, 4)))
TOKENS = 4
EVERY = FusionStep(0, TOKENS, (FusedTokens.all_tokens(2, TOKENS, torch.device("cpu")),))

CHOICES: dict[str, dict[str, Any]] = {
    "recipe": {},
    "constructor": {"swiglu": False, "concat": False, "weight_granularity": "scalar", "receiver_share": "rest"},
    "relu": {"swiglu": False, "activation": "relu", "layer_norm": False},
    "silu": {"swiglu": False, "activation": "silu", "residual": False},
    "no norm": {"layer_norm": False, "weight_temperature": 0.3},
    "token": {"weight_granularity": "token", "weight_features": "key"},
    "head": {"weight_granularity": "head", "weight_features": "value"},
    "head, both": {"weight_granularity": "head", "weight_features": "both", "concat": False},
    "value": {"weight_granularity": "value", "weight_features": "projected_value"},
    "value, all": {"weight_granularity": "value", "weight_features": "projected_both", "receiver_share": "none"},
    "rest": {"receiver_share": "rest", "weight_features": "projected_both"},
}
DEPTHS = {"constructor": 2, "head, both": 1, "token": 4}


def cache(geometry: KVGeometry, seed: int, tokens: int = TOKENS) -> LayerStack:
    g = torch.Generator().manual_seed(seed)

    def entries(heads: int, dim: int) -> Tensor:
        return torch.randn(2, heads, tokens, dim, generator=g)

    return [LayerKV(entries(x.kv_heads, x.key_dim), entries(x.kv_heads, x.value_dim)) for x in geometry.layers]


def double(layers: LayerStack) -> LayerStack:
    return [LayerKV(layer.keys.double(), layer.values.double()) for layer in layers]


def make(
    receiver: KVGeometry = RECEIVER,
    sharers: tuple[KVGeometry, ...] = (SHARER,),
    complex_choices: dict[str, Any] | None = None,
    **choices: Any,
) -> Fuser:
    torch.manual_seed(0)
    parts = ComplexConfig(**{"weight_hidden_dim": 7, "weight_dropout": 0.0, **(complex_choices or {})})
    config = FuserConfig(**{"kind": "c2c_c", "hidden_dim": 6, "dropout": 0.0, "complex": parts, **choices})
    fuser = Fuser(receiver, sharers, config).eval()
    with torch.no_grad():
        # Norms, scalars and gates must not be at their trivial start.
        for parameter in fuser.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    fuser.force_gates(is_open=True)
    return fuser


def twins_of(fuser: Fuser, sharer_heads: tuple[int, int]) -> list[Twin]:
    """A twin for each receiver layer, with the fuser's weights; gates stay as they are."""
    group = fuser.sharers[0].groups[0]
    twins = [Twin(HEADS, sharer_heads, fuser.config) for _ in group.receiver_layers]
    for place, twin in enumerate(twins):
        for form, ours, theirs in same_weights(group, twin):
            theirs.data = layer_of(form, ours.data, place).clone()
    return twins


@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CHOICES)
def test_forward_and_gradients_are_the_slow_twins(name: str, is_training: bool) -> None:
    # The sharer's width decides whether the residual of the MLP exists.
    geometry, heads = (SHARER, SHARER_HEADS) if name in ("silu", "head") else (WIDE_SHARER, (1, 8))
    fuser = make(sharers=(geometry,), complex_choices=CHOICES[name], num_layers=DEPTHS.get(name, 3))
    # In double precision nothing but the formulas can differ.
    fuser.double().train(is_training).set_temperature(0.6)
    twins, mine, theirs = twins_of(fuser, heads), double(cache(RECEIVER, 1)), double(cache(geometry, 2))
    torch.manual_seed(3)
    draws = [torch.rand(2, 2, TOKENS, 4, dtype=torch.double) if is_training else None for _ in twins]
    torch.manual_seed(3)
    fused = fuser(mine, [theirs], EVERY)
    slow = []
    for n, (twin, source) in enumerate(zip(twins, fuser.sharers[0].layer_map, strict=True)):
        sharer = (theirs[source].keys, theirs[source].values)
        slow.append(twin(sharer, (mine[n].keys, mine[n].values), draws[n], 0.6))
        torch.testing.assert_close(fused[n].keys, slow[n][0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(fused[n].values, slow[n][1], rtol=1e-9, atol=1e-9)
    sum((layer.keys.square().sum() + layer.values.sin().sum()) for layer in fused).backward()
    sum((keys.square().sum() + values.sin().sum()) for keys, values in slow).backward()
    group, seen = fuser.sharers[0].groups[0], set()
    for place, twin in enumerate(twins):
        for form, ours, parameter in same_weights(group, twin):
            seen.add(id(ours))
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            given = torch.zeros_like(ours) if ours.grad is None else ours.grad
            torch.testing.assert_close(layer_of(form, given, place), wanted, rtol=1e-9, atol=1e-9)
    assert seen == {id(parameter) for parameter in fuser.parameters()}, "every parameter is compared"
    assert group.gate.logit.grad is None or is_training


def test_one_layer_at_a_time_is_the_stack() -> None:
    fuser, mine, theirs = make(HYBRID), cache(HYBRID, 1), cache(SHARER, 2)
    together = fuser(mine, [theirs], EVERY)
    for n, layer in enumerate(mine):
        alone = fuser.fuse_new(n, layer, [theirs])
        torch.testing.assert_close(alone.keys, together[n].keys)
        torch.testing.assert_close(alone.values, together[n].values)


def test_one_layer_draws_as_its_stack_would() -> None:
    """Fusion in the pass that makes the entries, in training: the same noise, layer after layer."""
    fuser, mine, theirs = make().train(), cache(RECEIVER, 1), cache(SHARER, 2)
    torch.manual_seed(4)
    together = fuser(mine, [theirs], EVERY)
    torch.manual_seed(4)
    for n, layer in enumerate(mine):
        torch.testing.assert_close(fuser.fuse_new(n, layer, [theirs]).keys, together[n].keys)


def test_keys_and_values_share_their_noise() -> None:
    fuser = make(HYBRID).train()
    group = fuser.sharers[0].groups[1]
    keys, values = fuser.gate_noise(group, 1, 2, EVERY, EVERY.fused_tokens[0])
    assert keys.shape == (1, 8, 1, 6)
    assert torch.equal(keys[..., :3], values)


def test_closed_gates_are_the_receiver() -> None:
    fuser, mine, theirs = make(), cache(RECEIVER, 1), cache(SHARER, 2)
    fuser.force_gates(is_open=False)
    for new, old in zip(fuser(mine, [theirs], EVERY), mine, strict=True):
        assert torch.equal(new.keys, old.keys)
        assert torch.equal(new.values, old.values)
    for place in range(3):
        assert torch.equal(fuser.fuse_new(place, mine[place], [theirs]).keys, mine[place].keys)


def test_only_the_spans_change() -> None:
    read = FusedTokens(torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2]), torch.tensor([3, 0, 2]))
    fuser, mine, theirs = make(), cache(RECEIVER, 1), cache(SHARER, 2)
    fused, twins = fuser(mine, [theirs], FusionStep(1, 4, (read,))), twins_of(fuser, SHARER_HEADS)
    for n, (new, old) in enumerate(zip(fused, mine, strict=True)):
        assert (new.keys != old.keys).any(-1).any(1).nonzero().tolist() == [[0, 1], [0, 3], [1, 2]]
        columns = (read.row.tolist(), read.token.tolist(), read.source.tolist())
        for row, token, source in zip(*columns, strict=True):
            sharer = theirs[fuser.sharers[0].layer_map[n]]
            one = [x[row : row + 1, :, source : source + 1] for x in (sharer.keys, sharer.values)]
            own = [x[row : row + 1, :, token : token + 1] for x in (old.keys, old.values)]
            keys, values = twins[n]((one[0], one[1]), (own[0], own[1]), None, 1.0)
            torch.testing.assert_close(new.keys[row, :, token], keys[0, :, 0])
            torch.testing.assert_close(new.values[row, :, token], values[0, :, 0])


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_several_sharers(order: str) -> None:
    fuser = make(sharers=(SHARER, WIDE_SHARER), sharer_order=order)
    mine, first, second = cache(RECEIVER, 1), cache(SHARER, 2), cache(WIDE_SHARER, 3)
    both = FusionStep(0, TOKENS, EVERY.fused_tokens * 2)
    check_order(fuser, mine, first, second, both)


def test_gates_are_listed_once_for_keys_and_once_for_values() -> None:
    fuser = make(gate_init=0.5)
    fuser.force_gates(is_open=False)
    assert fuser.gate_logits().tolist() == [[[-1.0] * 3] * 2]
    fuser.set_temperature(0.25)
    assert fuser.sharers[0].groups[0].gate.temperature.tolist() == [0.25] * 3


def test_parameters_that_train_and_their_groups() -> None:
    fuser = make()
    names = {name.removeprefix("sharers.0.groups.0.") for name, _ in fuser.named_parameters()}
    mlp = {f"mlp.hidden.{i}.{part}" for i in range(2) for part in ("gate", "up", "norm")} | {"mlp.output", "combine"}
    maps = {f"{side}.{part}" for side in ("keys", "values") for part in mlp}
    maps |= {f"weighting.{part}" for part in ("hidden.hidden.0.map", "hidden.hidden.0.norm", "hidden.output")}
    maps |= {"weighting.keys", "weighting.values"}
    assert names == {f"{name}.{kind}" for name in maps for kind in ("weight", "bias")} | {"gate.logit"}
    groups = ParameterGroups(gate_rate=2.0).build(fuser, lambda p: torch.optim.AdamW(p, lr=0.1)).param_groups
    assert [len(group["params"]) for group in groups] == [len(names) - 11, 10, 1]
    assert [group["weight_decay"] for group in groups[1:]] == [0.0, 0.0]
    assert groups[-1]["lr"] == 0.2
    assert groups[-1]["params"][0] is fuser.sharers[0].groups[0].gate.logit


@pytest.mark.slow
def test_compiled_parts_give_the_same() -> None:
    fuser, mine, theirs = make(), cache(RECEIVER, 1), cache(SHARER, 2)
    plain = fuser(mine, [theirs], EVERY)
    compile_fuser(fuser, "eager")
    for layer, same in zip(fuser(mine, [theirs], EVERY), plain, strict=True):
        torch.testing.assert_close(layer.keys, same.keys)


def test_launches_do_not_grow_with_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda *a, **k: (calls.append(1), original(*a, **k))[1])
    for layers in (2, 8):
        calls.clear()
        receiver = KVGeometry((LayerGeometry(2, 4, 4),) * layers)
        make(receiver, (SHARER,))(cache(receiver, 1), [cache(SHARER, 2)], EVERY)
        # Keys and values: 2 * 2 hidden maps, 1 out, 1 to combine; and 4 to weigh.
        assert len(calls) == 2 * 6 + 4


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"weight_hidden_dim": 0}, "weight_hidden_dim is 0"),
        ({"weight_dropout": 1.0}, "weight_dropout is 1.0"),
        ({"weight_temperature": 0.0}, "weight_temperature is 0.0"),
    ],
)
def test_impossible_choices_are_named(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        ComplexConfig(**choices)
    with pytest.raises(FuserConfigError, match="at least 1"):
        FuserConfig(kind="c2c_c", num_layers=0)

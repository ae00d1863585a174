"""The stacked fuser against a slow twin: one plain network per layer, token by token."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.alignment.layer_alignment import checked_map, depth, terminal, terminal_or_skip, upper_half
from c2c_lightning.errors import FuserConfigError, LayerMapError
from c2c_lightning.fuser.c2c_kind import LayerFuser
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.gate import gumbel, logistic
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack
from tests.fuser.several import check_order

RECEIVER = KVGeometry((LayerGeometry(2, 4, 4),) * 3)
SHARER = KVGeometry((LayerGeometry(3, 5, 5),) * 4)
# Layers of two shapes, as in hybrids: several stacks.
HYBRID = KVGeometry((LayerGeometry(2, 4, 4), LayerGeometry(1, 6, 3), LayerGeometry(2, 4, 4)))
ROUND = FusionStep(1, 4, (FusedTokens(torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2]), torch.tensor([4, 0, 2])),))


def cache(geometry: KVGeometry, tokens: int, seed: int, batch: int = 2) -> LayerStack:
    g = torch.Generator().manual_seed(seed)

    def entries(heads: int, dim: int) -> Tensor:
        return torch.randn(batch, heads, tokens, dim, generator=g)

    return [LayerKV(entries(x.kv_heads, x.key_dim), entries(x.kv_heads, x.value_dim)) for x in geometry.layers]


def make(receiver: KVGeometry = RECEIVER, sharers: tuple[KVGeometry, ...] = (SHARER,), **choices: object) -> Fuser:
    torch.manual_seed(0)
    fuser = Fuser(receiver, sharers, FuserConfig(hidden_dim=8, intermediate_dim=6, dropout=0.0, **choices)).eval()
    fuser.force_gates(is_open=True)
    return fuser


def slow_residual(part: LayerFuser, place: int, receiver: Tensor, sharer: Tensor, kind: str) -> Tensor:
    """Eq. 3 for one token of one layer, written out; (kv_heads, head_dim) in and out."""

    def linear(x: Tensor, m: torch.nn.Module) -> Tensor:
        return x @ m.weight[place] + (0 if m.bias is None else m.bias[place, 0])

    def block(x: Tensor, m: torch.nn.Module) -> Tensor:
        norm = x / torch.sqrt(x.pow(2).mean() + 1e-6) * m.norm.weight[place, 0]
        inner = linear(norm, m.w1)
        gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + linear(gelu, m.w2)

    s, r = sharer.flatten(), receiver.flatten()
    x = block(linear(s if kind == "project" else torch.cat([s, r]), part.features.input), part.features.block)
    y = x
    for b in part.projector.blocks:
        y = block(y, b)
    y = linear(y, part.projector.output).view_as(receiver)
    if kind == "project":
        return y - receiver
    w = (
        torch.sigmoid(linear(block(x, part.weighting.block), part.weighting.output))
        if kind in ("c2c", "no_gates")
        else 1
    )
    return (w[:, None] if kind in ("c2c", "no_gates") else 1) * y


@pytest.mark.parametrize("kind", ["c2c", "no_weights", "fuse", "project", "no_gates"])
@pytest.mark.parametrize("receiver_geometry", [RECEIVER, HYBRID], ids=["uniform", "hybrid"])
def test_stacked_fuser_is_the_slow_twin(kind: str, receiver_geometry: KVGeometry) -> None:
    fuser = make(receiver_geometry, kind=kind)
    mine, theirs = cache(receiver_geometry, 5, 1), cache(SHARER, 6, 2)
    fused = fuser(mine, [theirs], ROUND)
    expected = [LayerKV(layer.keys.clone(), layer.values.clone()) for layer in mine]
    for n, m in enumerate(fuser.sharers[0].layer_map):
        number, place = fuser.sharers[0].place_of(n)
        group = fuser.sharers[0].groups[number]
        tokens = ROUND.fused_tokens[0]
        for row, token, source in zip(tokens.row.tolist(), tokens.token.tolist(), tokens.source.tolist(), strict=True):
            for name, part in (("keys", group.keys), ("values", group.values)):
                r, s = getattr(mine[n], name)[row, :, token], getattr(theirs[m], name)[row, :, source]
                getattr(expected[n], name)[row, :, token] += slow_residual(part, place, r, s, kind)
    for layer, twin in zip(fused, expected, strict=True):
        torch.testing.assert_close(layer.keys, twin.keys)
        torch.testing.assert_close(layer.values, twin.values)


def test_one_layer_at_a_time_is_the_stack() -> None:
    fuser, mine, theirs = make(HYBRID), cache(HYBRID, 3, 1), cache(SHARER, 3, 2)
    read = FusedTokens.all_tokens(2, 3, torch.device("cpu"))
    together = fuser(mine, [theirs], FusionStep(0, 3, (read,)))
    for n, layer in enumerate(mine):
        alone = fuser.fuse_new(n, layer, [theirs])
        torch.testing.assert_close(alone.keys, together[n].keys)
        torch.testing.assert_close(alone.values, together[n].values)


def test_tokens_outside_spans_and_the_input_are_untouched() -> None:
    fuser, mine = make(), cache(RECEIVER, 5, 1)
    before = [layer.keys.clone() for layer in mine]
    fused = fuser(mine, [cache(SHARER, 6, 2)], ROUND)
    for layer, new, old in zip(mine, fused, before, strict=True):
        assert torch.equal(layer.keys, old)
        changed = (new.keys != old).any(-1).any(1)
        assert changed.nonzero().tolist() == [[0, 1], [0, 3], [1, 2]]


def test_closed_gates_change_nothing() -> None:
    fuser, mine = make(), cache(RECEIVER, 5, 1)
    fuser.force_gates(is_open=False)
    for new, old in zip(fuser(mine, [cache(SHARER, 6, 2)], ROUND), mine, strict=True):
        assert torch.equal(new.keys, old.keys)
        assert torch.equal(new.values, old.values)


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_several_sharers(order: str) -> None:
    fuser = make(sharers=(SHARER, SHARER), sharer_order=order)
    mine, first, second = cache(RECEIVER, 5, 1), cache(SHARER, 6, 2), cache(SHARER, 6, 3)
    both = FusionStep(1, 4, ROUND.fused_tokens * 2)
    check_order(fuser, mine, first, second, both)


def test_skipped_layers_have_no_fuser() -> None:
    fuser, mine = make(layer_map=[[-1, 2, 0]]), cache(RECEIVER, 5, 1)
    assert fuser.sharers[0].num_sharer_layers == 3
    fused = fuser(mine, [cache(SHARER, 6, 2)], ROUND)
    assert fused[0] is mine[0]
    assert not torch.equal(fused[2].keys, mine[2].keys)
    assert torch.isnan(fuser.gate_logits()[0, :, 0]).all()


def test_layer_alignments() -> None:
    assert terminal(4, 6) == [2, 3, 4, 5]
    assert terminal(6, 4) == [0, 0, 0, 1, 2, 3]
    assert terminal_or_skip(6, 4) == [None, None, 0, 1, 2, 3]
    assert depth(4, 7) == [0, 2, 4, 6]
    assert depth(3, 2) == [0, 0, 1], "a tie goes to the lower layer"
    assert depth(1, 3) == [0]
    assert upper_half(18, 30) == [None] * 9 + [15, 17, 19, 20, 22, 24, 26, 27, 29]
    assert upper_half(5, 5) == [None, None, 2, 3, 4], "the middle layer belongs to the upper half"
    assert upper_half(1, 4) == [2]
    assert upper_half(4, 1) == [None, None, 0, 0]


def test_impossible_choices_are_named() -> None:
    with pytest.raises(LayerMapError, match="sharer layer 4, but the sharer has layers 0 to 3"):
        checked_map([0, 4, 1], 3, 4)
    with pytest.raises(LayerMapError, match="2 entries, but the receiver has 3 layers"):
        checked_map([0, 1], 3, 4)
    with pytest.raises(FuserConfigError, match="1 maps for 2 sharers"):
        make(sharers=(SHARER, SHARER), layer_map=[[0, 1, 2]])
    with pytest.raises(FuserConfigError, match="at least 3"):
        FuserConfig(num_layers=2)


def test_noise_is_that_of_the_released_code() -> None:
    """One draw for all layers equals the released draws, layer by layer, keys before values."""
    torch.manual_seed(5)
    released = [[torch.rand(2, 2, 3, 1) for _ in "kv"] for _ in range(3)]
    fuser = make(gate_noise="gumbel").train()
    torch.manual_seed(5)
    group = fuser.sharers[0].groups[0]
    noise = fuser.gate_noise(group, 3, 2, ROUND, ROUND.fused_tokens[0])
    for layer, draws in enumerate(released):
        for part, draw in zip(noise, draws, strict=True):
            for n, (row, token) in enumerate([(0, 1), (0, 3), (1, 2)]):
                # Padding is on the right there: each row's draws begin at its first fused token.
                assert torch.equal(part[layer, n], gumbel(draw)[row, :, token - {0: 1, 1: 2}[row]])


def test_gumbel_is_biased_and_logistic_is_not() -> None:
    """At logit 0 one Gumbel opens a gate 63 % of the time in training, where evaluation shuts it."""
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    assert float((gumbel(uniform) > 0).float().mean()) == pytest.approx(0.632, abs=0.005)
    assert float((logistic(uniform) > 0).float().mean()) == pytest.approx(0.5, abs=0.005)


def test_gates_are_soft_in_training_and_hard_in_evaluation() -> None:
    fuser, mine, theirs = make(gate_noise="logistic"), cache(RECEIVER, 5, 1), cache(SHARER, 6, 2)
    hard = fuser(mine, [theirs], ROUND)
    fuser.train()
    torch.manual_seed(0)
    soft = fuser(mine, [theirs], ROUND)
    assert not torch.equal(hard[0].keys, soft[0].keys)
    soft[0].keys.sum().backward()
    assert all(g.logit.grad is not None for _, _, keys, values in fuser.gates() for g in (keys,))
    # Without noise training computes what evaluation computes.
    fuser.config = FuserConfig(hidden_dim=8, intermediate_dim=6, dropout=0.0, gate_noise="none")
    assert torch.equal(fuser(mine, [theirs], ROUND)[0].keys, hard[0].keys)


def test_half_precision_caches_keep_their_type() -> None:
    fuser = make()
    mine = [LayerKV(layer.keys.bfloat16(), layer.values.bfloat16()) for layer in cache(RECEIVER, 5, 1)]
    fused = fuser(mine, [cache(SHARER, 6, 2)], ROUND)
    assert fused[0].keys.dtype == torch.bfloat16
    exact = fuser([LayerKV(x.keys.float(), x.values.float()) for x in mine], [cache(SHARER, 6, 2)], ROUND)
    assert torch.equal(fused[0].keys, exact[0].keys.bfloat16()), "added in float32, rounded once"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_gradients", [False, True])
def test_all_tokens_at_once_are_fused_as_some_of_them(dtype: torch.dtype, has_gradients: bool) -> None:
    """All tokens of a cache take another path, without a choice by index."""
    fuser, source = make(), torch.randint(0, 6, (10,), generator=torch.Generator().manual_seed(3))
    everything = replace(FusedTokens.all_tokens(2, 5, torch.device("cpu")), source=source)
    mine = [LayerKV(layer.keys.to(dtype), layer.values.to(dtype)) for layer in cache(RECEIVER, 5, 1)]
    theirs, end = cache(SHARER, 6, 2), 5
    with torch.set_grad_enabled(has_gradients):
        at_once = fuser(mine, [theirs], FusionStep(0, end, (everything,)))
        in_turn = mine
        for keep in (everything.token < 2, everything.token >= 2):
            in_turn = fuser(in_turn, [theirs], FusionStep(0, end, (everything.where(keep),)))
    for ours, expected in zip(at_once, in_turn, strict=True):
        torch.testing.assert_close(ours.keys, expected.keys)
        torch.testing.assert_close(ours.values, expected.values)
        assert ours.keys.dtype == dtype
    if has_gradients:
        gradients, keys = [], fuser.sharers[0].groups[0].keys
        weights = [p for name, p in keys.named_parameters() if not name.startswith("gate")]  # hard gates have none
        for fused in (at_once, in_turn):
            loss = torch.stack([layer.keys.float().square().sum() for layer in fused]).sum()
            gradients.append(torch.autograd.grad(loss, weights))
        torch.testing.assert_close(*gradients)


class _Counted(TorchDispatchMode):
    """Counts the operations that a device would run."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


def test_launches_do_not_grow_with_layers() -> None:
    """Forward and back, off the processor; there a visit takes as many layers as its cache holds."""
    counts = []
    for layers in (2, 8):
        receiver = KVGeometry((LayerGeometry(2, 4, 4),) * layers)
        fuser = make(receiver, (KVGeometry((LayerGeometry(3, 5, 5),) * layers),)).to("meta")
        mine, theirs = (
            [kv.to(torch.device("meta")) for kv in cache(g, 5, 1)] for g in (receiver, *fuser.sharer_geometries)
        )
        with _Counted() as counted:
            fused = fuser(mine, [theirs], ROUND)
            torch.autograd.backward([kv.keys for kv in fused], [kv.keys for kv in mine])
        counts.append(counted.number)
    assert counts[0] == counts[1]


def test_settings_of_use_may_be_replaced_and_those_of_the_weights_may_not() -> None:
    fuser = make()
    fuser.config = replace(fuser.config, sharer_order="parallel", fusion_mode="decode")
    for change in ({"hidden_dim": 7}, {"kind": "fuse"}, {"layer_alignment": "depth", "layer_map": [[0] * 3]}):
        with pytest.raises(FuserConfigError, match="those of its weights"):
            fuser.config = replace(fuser.config, **change)
    assert fuser.config.sharer_order == "parallel"

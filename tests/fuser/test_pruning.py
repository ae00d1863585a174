"""Removing layers from a fuser: closed ones without any change, others as if their gates were closed."""

from typing import Any

import pytest
import torch

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.pruning import closed_layers, fused_layers, num_bytes, without_layers
from c2c_lightning.kv.geometry import KVGeometry
from tests.fuser.kinds import HYBRID, RECEIVER, SHARER, STEP, entries_of, make

KINDS: dict[str, dict[str, Any]] = {
    "c2c": {},
    "low_rank": {"kind": "low_rank", "options": {"rank": 4}},
    "c2c_c": {"kind": "c2c_c"},
    "rotary_free": {"kind": "rotary_free", "options": {"kind": "low_rank", "rank": 4}},
}


@pytest.mark.parametrize("receiver", [RECEIVER, HYBRID], ids=["uniform", "hybrid"])
@pytest.mark.parametrize("kind", ["c2c", "low_rank", "c2c_c"])
def test_removing_closed_layers_changes_nothing(kind: str, receiver: KVGeometry) -> None:
    fuser = make(receiver, **KINDS[kind])
    (_, group, keys, values), *_ = fuser.gates()
    with torch.no_grad():
        keys.logit[0] = values.logit[0] = -1.0
    closed = closed_layers(fuser)
    assert closed == [{group.receiver_layers[0]}]
    pruned = without_layers(fuser, closed)
    assert fused_layers(pruned) == [[1, 2]]
    mine, theirs = entries_of(receiver, 5, 1), entries_of(SHARER, 6, 2)
    for whole, part in zip(fuser(mine, [theirs], STEP), pruned(mine, [theirs], STEP), strict=True):
        torch.testing.assert_close(whole.keys, part.keys)
        torch.testing.assert_close(whole.values, part.values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_a_layer_go_with_it(kind: str) -> None:
    fuser = make(**KINDS[kind])
    pruned = without_layers(fuser, [{1}])
    assert 3 * num_bytes(pruned) == 2 * num_bytes(fuser)
    for name, tensor in pruned.state_dict().items():
        assert torch.equal(tensor, fuser.state_dict()[name][[0, 2]])
    assert pruned.sharers[0].layer_map == [1, None, 3]


def test_a_layer_with_one_open_gate_stays() -> None:
    fuser = make()
    (_, _, keys, _), *_ = fuser.gates()
    with torch.no_grad():
        keys.logit.fill_(-1.0)
    assert closed_layers(fuser) == [set()]
    assert closed_layers(make(kind="fuse")) == [set()], "layers without gates are never closed"


def test_a_fuser_without_layers_is_refused() -> None:
    fuser = make()
    fuser.force_gates(is_open=False)
    with pytest.raises(FuserConfigError, match="no layer of the fuser would be left"):
        without_layers(fuser, closed_layers(fuser))

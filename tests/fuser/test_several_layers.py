"""Several sharer layers for each receiver layer: the heads of all of them, chosen by how well they predict."""

from itertools import pairwise

import pytest
import torch

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.several_layers import SeveralLayersKind
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV
from tests.fuser.kinds import RECEIVER, SHARER, STEP, check_finite_differences, entries_of, make

OPTIONS = {"num_sources": 2, "num_tokens": 64}
CANDIDATES = [0, 1, 2, 3]


def stack(fuser: Fuser) -> SeveralLayersKind:
    group = fuser.sharers[0].groups[0]
    assert isinstance(group, SeveralLayersKind)
    return group


def paired(tokens: int = 400, noise: float = 0.3) -> tuple[PackedKV, PackedKV]:
    """Receiver layer n is a linear map of sharer layers n and n + 1; the others are unrelated."""
    g = torch.Generator().manual_seed(0)
    theirs = torch.randn(4, tokens, 3, 6, generator=g)
    maps = torch.randn(3, 2, 18, 8, generator=g)
    flat = theirs.flatten(2)
    mine = torch.stack([flat[n] @ maps[n, 0] + flat[n + 1] @ maps[n, 1] for n in range(3)])
    mine = (mine + noise * torch.randn(mine.shape, generator=g)).unflatten(2, (2, 4))
    return PackedKV(torch.zeros_like(mine), mine), PackedKV(torch.zeros_like(theirs), theirs)


def test_the_layers_that_predict_best_are_read() -> None:
    group = stack(make(kind="several_layers", options=OPTIONS))
    assert group.sharer_layers == [1, 1, 2, 2, 3, 3], "before the comparison those of the layer map"
    group.fit_closed_form(*paired(), CANDIDATES)
    assert group.sharer_layers == [0, 1, 1, 2, 2, 3]
    assert group.sources.tolist() == [[0, 1], [1, 2], [2, 3]]


@pytest.mark.parametrize("kind", ["c2c", "low_rank", "no_gates"])
def test_it_is_the_kind_within_on_the_heads_of_all_layers(kind: str) -> None:
    """The slow twin: a sharer whose layers have the heads of two layers."""
    own = {"rank": 4} if kind == "low_rank" else {}
    fuser = make(kind="several_layers", options={**OPTIONS, "kind": kind, **own})
    group = stack(fuser)
    group.fit_closed_form(*paired(), CANDIDATES)
    wide = KVGeometry((LayerGeometry(6, 6, 6),) * 3)
    twin = make(RECEIVER, wide, kind=kind, options=own, layer_map=[[0, 1, 2]])
    twin.sharers[0].groups[0].load_state_dict(group.inner.state_dict())
    mine, theirs = entries_of(RECEIVER, 5, 1), entries_of(SHARER, 6, 2)
    joined = [
        LayerKV(*(torch.cat(pair, 1) for pair in ((a.keys, b.keys), (a.values, b.values)))) for a, b in pairwise(theirs)
    ]
    for ours, expected in zip(fuser(mine, [theirs], STEP), twin(mine, [joined], STEP), strict=True):
        torch.testing.assert_close(ours.keys, expected.keys)
        torch.testing.assert_close(ours.values, expected.values)


def test_the_layers_are_saved_with_the_weights() -> None:
    fuser, again = (make(kind="several_layers", options=OPTIONS) for _ in range(2))
    stack(fuser).fit_closed_form(*paired(), CANDIDATES)
    again.load_state_dict(fuser.state_dict())
    assert stack(again).sharer_layers == stack(fuser).sharer_layers
    assert again.sharers[0].read_layers == {0, 1, 2, 3}


def test_gradients_are_finite_differences() -> None:
    check_finite_differences(make(kind="several_layers", options=OPTIONS))


def test_impossible_choices_are_named() -> None:
    for kind in ("rotary_free", "ridge", "ridge_start", "memory", "several_layers"):
        with pytest.raises(FuserConfigError, match=f"cannot have '{kind}' within"):
            FuserConfig(kind="several_layers", options={"kind": kind})
    with pytest.raises(FuserConfigError, match="num_sources is 0"):
        FuserConfig(kind="several_layers", options={"num_sources": 0})
    five = stack(make(kind="several_layers", options={"num_sources": 5}))
    with pytest.raises(FuserConfigError, match="has only 4 layers"):
        five.fit_closed_form(*paired(), CANDIDATES)
    with pytest.raises(FuserConfigError, match="compared on 20 tokens"):
        stack(make(kind="several_layers", options=OPTIONS)).fit_closed_form(*paired(20), CANDIDATES)

"""A closed-form map as the start of training, with another kind on top."""

import pytest
import torch

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.ridge_start import RidgeStartKind
from tests.fuser.kinds import RECEIVER, SHARER, STEP, check_finite_differences, entries_of, make
from tests.fuser.test_ridge import CANDIDATES, paired, ridge

OPTIONS = {"num_sources": 2, "regularisation": 1e-6, "on_top": "low_rank", "rank": 4}


def fresh() -> tuple[Fuser, RidgeStartKind]:
    torch.manual_seed(0)
    fuser = Fuser(RECEIVER, [SHARER], FuserConfig(kind="ridge_start", dropout=0.0, options=OPTIONS)).eval()
    fuser.force_gates(is_open=True)
    group = fuser.sharers[0].groups[0]
    assert isinstance(group, RidgeStartKind)
    return fuser, group


def test_it_begins_as_the_ridge_map() -> None:
    fuser, group = fresh()
    plain = ridge()
    group.fit_closed_form(*paired(), CANDIDATES)
    plain.sharers[0].groups[0].fit_closed_form(*paired(), CANDIDATES)
    assert group.sharer_layers == [1, 0, 2, 2, 1, 3, 3, 0, 3]
    mine, theirs = entries_of(RECEIVER, 5, 1), entries_of(SHARER, 6, 2)
    for ours, expected in zip(fuser(mine, [theirs], STEP), plain(mine, [theirs], STEP), strict=True):
        torch.testing.assert_close(ours.keys, expected.keys)
        torch.testing.assert_close(ours.values, expected.values)


def test_the_kind_on_top_is_added_by_scale() -> None:
    _, group = fresh()
    mine, theirs = paired(6)
    read = PackedKV(*(side[[m for m in group.sharer_layers]] for side in (theirs.keys, theirs.values)))
    aligned = PackedKV(*(side[[1, 2, 3]] for side in (theirs.keys, theirs.values)))
    none = (None, None)
    without, added = group.residual(mine, read, none), group.inner.residual(mine, aligned, none)
    group.key_scale.data.fill_(0.5)
    with_key = group.residual(mine, read, none)
    torch.testing.assert_close(with_key.keys, without.keys + 0.5 * added.keys)
    torch.testing.assert_close(with_key.values, without.values)


def test_gradients_are_finite_differences() -> None:
    check_finite_differences(make(kind="ridge_start", options=OPTIONS))


def test_impossible_parts_are_named() -> None:
    with pytest.raises(FuserConfigError, match="cannot have 'rotary_free' on top"):
        FuserConfig(kind="ridge_start", options={"on_top": "rotary_free"})
    with pytest.raises(FuserConfigError, match=r"unknown 'low_rank' settings \['rnk'\]"):
        FuserConfig(kind="ridge_start", options={"rnk": 4})

"""A fuser of each kind is the same after it was saved and loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.export import load_fuser
from c2c_lightning.export.description import FuserDescription, ModelReference
from c2c_lightning.export.format import save_fuser
from tests.fuser.kinds import RECEIVER, SHARER, STEP, entries_of, make

KINDS: dict[str, dict[str, Any]] = {
    "c2c": {},
    "low_rank": {"kind": "low_rank", "options": {"rank": 4}},
}


@pytest.mark.parametrize("name", KINDS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    fuser = make(**KINDS[name])
    models = ModelReference("receiver", RECEIVER), (ModelReference("sharer", SHARER),)
    save_fuser(tmp_path / "fuser", fuser, FuserDescription(fuser.config, *models))
    loaded = load_fuser(tmp_path / "fuser")
    assert loaded.description.config == fuser.config
    mine, theirs = entries_of(RECEIVER, 5, 1), entries_of(SHARER, 6, 2)
    for ours, again in zip(fuser(mine, [theirs], STEP), loaded.fuser(mine, [theirs], STEP), strict=True):
        assert torch.equal(ours.keys, again.keys)
        assert torch.equal(ours.values, again.values)

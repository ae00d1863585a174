"""A fuser of each kind is the same after it was saved and loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.export import load_fuser
from c2c_lightning.export.description import FuserDescription, ModelReference
from c2c_lightning.export.format import save_fuser
from c2c_lightning.kv.rotary import LayerRotary
from tests.fuser.kinds import RECEIVER, SHARER, entries_of, make
from tests.fuser.test_rotary_free import PLACED

KINDS: dict[str, dict[str, Any]] = {
    "c2c": {},
    "low_rank": {"kind": "low_rank", "options": {"rank": 4}},
    "ridge": {"kind": "ridge", "options": {"num_sources": 2}},
    "ridge of bounded rank": {"kind": "ridge", "options": {"num_sources": 2, "map_rank": 3}},
    "ridge_start": {"kind": "ridge_start", "options": {"rank": 4}},
    "hub": {"kind": "hub", "options": {"latent_layers": 3, "latent_dim": 5}},
    "rotary_free": {"kind": "rotary_free", "options": {"kind": "low_rank", "rank": 4}},
    "several_layers": {"kind": "several_layers", "options": {"kind": "low_rank", "rank": 4, "num_sources": 2}},
    "memory": {"kind": "memory", "options": {"width": 8}},
}


@pytest.mark.parametrize("name", KINDS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    fuser = make(**KINDS[name])
    models = ModelReference("receiver", RECEIVER), (ModelReference("sharer", SHARER),)
    save_fuser(tmp_path / "fuser", fuser, FuserDescription(fuser.config, *models))
    loaded = load_fuser(tmp_path / "fuser")
    for either in (fuser, loaded.fuser):
        either.bind_rotary(0, [LayerRotary((1.0, 0.1))] * 3, [LayerRotary((0.5,))] * 4)
    assert loaded.description.config == fuser.config
    mine, theirs = entries_of(RECEIVER, 5, 1), entries_of(SHARER, 6, 2)
    for ours, again in zip(fuser(mine, [theirs], PLACED), loaded.fuser(mine, [theirs], PLACED), strict=True):
        assert torch.equal(ours.keys, again.keys)
        assert torch.equal(ours.values, again.values)

"""Latency against the lengths of prompt and response."""

import pytest
import torch

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.profiling.length_sweep import LengthSweep, latency_table, plain


def test_both_lines_meet_at_the_shortest_lengths() -> None:
    assert LengthSweep((32, 16), (8, 4)).lengths == [(16, 4), (32, 4), (16, 8)]


def test_every_responder_is_timed_at_every_length() -> None:
    torch.manual_seed(0)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, gate_init=1.0, token_alignment="span")
    model = C2CModel(load_frozen("embedded:receiver"), [load_frozen("embedded:sharer")], config).eval()
    calls: list[None] = []
    points = LengthSweep((8, 24), (2,), rounds=1).run(model, lambda: calls.append(None))
    assert len(calls) == 2
    assert [point.responder for point in points] == ["receiver", "sharer", "c2c"] * 2
    assert points[3].prompt_tokens - points[0].prompt_tokens == pytest.approx(16, abs=4)
    for point in points:
        assert 0 < point.fastest <= point.seconds <= point.slowest
    assert "fuse" in points[2].phases
    assert latency_table(points).row_count == len(plain(points)) == 6


@pytest.mark.parametrize("wrong", [{"prompt_tokens": ()}, {"new_tokens": (0,)}, {"rounds": 0}], ids=str)
def test_impossible_lengths_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        LengthSweep(**wrong)  # type: ignore[arg-type]

"""Two checkouts timed by turns: here this one against itself."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import compare_checkouts
from tests.profiling.pairs import RECEIVER, SHARER

ROOT = Path(__file__).parents[2]


def test_summary_takes_the_fastest_round_of_every_part() -> None:
    rounds = {
        "training step": {"this": [{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 2.0}], "other": [{"a": 2.0, "b": 4.0}]},
        "decode": {"this": [{"fused": 3.0, "alone": 2.0}], "other": [{"fused": 1.0, "alone": 1.0}]},
    }
    assert compare_checkouts.summary(rounds) == {
        "training step": {"this": 3.0, "other": 6.0, "ratio": 0.5},
        "decode": {"this": 1.5, "other": 1.0, "ratio": 1.5},
    }


@pytest.mark.slow
def test_every_mode_is_measured_on_both_checkouts(tmp_path: Path) -> None:
    pair = tmp_path / "pair.yaml"
    fuser = {"hidden_dim": 16, "intermediate_dim": 16}
    pair.write_text(yaml.safe_dump({"init_args": {"receiver": RECEIVER, "sharers": [SHARER], "fuser": fuser}}))
    output = tmp_path / "results.json"
    pairs = ["--small_pair", str(pair), "--deep_pair", str(pair), "--max_tokens", "24"]
    assert compare_checkouts.main(["--other", str(ROOT), "--rounds", "1", *pairs, "--output", str(output)]) == 0
    results = json.loads(output.read_text())
    for mode in ("prefill", "prompt", "decode"):
        assert {f"training step, {mode}", f"training step, {mode}, 30 layers"} <= results["peak_mib"].keys()
    assert {"prefill", "decode"} <= results["summary"].keys()
    assert all(row["ratio"] > 0 for row in results["summary"].values())

"""The benchmark of kept caches: epochs by turns, and the numbers that it writes."""

import json
from pathlib import Path

import pytest

from benchmarks.kept_caches import kind_of, main


def test_the_first_epoch_fills_and_later_ones_take_turns() -> None:
    assert [kind_of(epoch) for epoch in range(5)] == ["filling", "kept", "computed", "kept", "computed"]


@pytest.mark.slow
def test_kept_caches_make_a_step_of_the_embedded_pair_faster(tmp_path: Path) -> None:
    assert (
        main(["--rows", "48", "--rounds", "1", "--output", str(tmp_path / "kept.json"), "--data.batch_size", "16"]) == 0
    )
    numbers = json.loads((tmp_path / "kept.json").read_text())
    assert numbers["steps"] == 3
    assert numbers["ratio"] > 1.0

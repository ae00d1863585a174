"""The table of fuser kinds at the paper's sizes."""

import json
from pathlib import Path

import pytest

from benchmarks.paper_kinds import main


def test_kinds_have_the_published_sizes_and_less_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "rows.json")]) == 0
    assert "PREDICTED" in capsys.readouterr().out
    rows = {row["kind"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert rows["c2c"]["parameters"] == 477_848_056
    assert rows["low_rank, rank 128"]["parameters"] == 19_393_528
    assert rows["low_rank, rank 128"]["step_tflop"] < 0.6 * rows["c2c"]["step_tflop"]
    assert rows["low_rank, rank 128"]["predicted_prefill_ratio"] < 1.15
    whole, replaced = rows["ridge, 1 source"], rows["ridge, 1 source, replace"]
    assert replaced["parameters"] == whole["parameters"]
    assert replaced["predicted_prefill_ratio"] < 0.75 * whole["predicted_prefill_ratio"]

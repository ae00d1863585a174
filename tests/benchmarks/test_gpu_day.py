"""The CPU stand-in of the GPU day: every part with tiny models, and what happens when a part fails."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_day import parts
from benchmarks.gpu_day.__main__ import main, run_part
from benchmarks.gpu_day.comparison import comparisons, goals
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Entry, Journal, Refuted, Skipped, read_entries

FAST = ("environment", "correctness", "inference", "training_step", "released", "real_models")


def failures(entries: list[Entry]) -> list[str]:
    return [str(entry) for entry in entries if entry.is_failure]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_a_part_with_tiny_models_in_this_process(name: str, tmp_path: Path) -> None:
    day = Day("cpu", True, tmp_path)
    run_part(name, day)
    entries = read_entries(day.part_file(name))
    assert entries
    assert failures(entries) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_run(tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--tiny", "--seconds", "590", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "gpu_day.json").read_text())
    assert {entry["part"] for entry in content["entries"]} == set(parts.PARTS)
    assert content["failed"] == []
    assert {goal["holds"] for goal in content["goals"]} == {"not measured"}
    assert content["predicted"]
    assert "| correctness | golden data, float32 | passed |" in (tmp_path / "gpu_day.md").read_text()


def test_one_part_in_a_process_of_its_own(tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--tiny", "--parts", "real_models", "--out", str(tmp_path)]) == 0
    statuses = [entry["status"] for entry in json.loads((tmp_path / "gpu_day.json").read_text())["entries"]]
    assert statuses == ["skipped", "passed"]
    assert {path.name for path in tmp_path.iterdir()} == {"gpu_day.json", "gpu_day.md", "failed.txt"}


def test_a_part_that_reaches_its_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.PARTS, "correctness", 0.5)
    monkeypatch.setattr(parts, "SHORTEST", 0.1)
    assert main(["--device", "cpu", "--tiny", "--parts", "correctness", "--out", str(tmp_path)]) == 1
    assert "The time limit of 0 s was reached" in (tmp_path / "failed.txt").read_text()


def test_parts_after_the_time_of_the_run_are_skipped(tmp_path: Path) -> None:
    entries = parts.run_parts(Day("cpu", True, tmp_path), ["correctness", "released"], seconds=0)
    assert [entry.status for entry in entries] == ["skipped", "skipped"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_nothing_else_is_tried(tmp_path: Path) -> None:
    options = ["--tiny", "--parts", "environment", "correctness", "--out", str(tmp_path)]
    assert main(options) == 1
    assert "environment: device" in (tmp_path / "failed.txt").read_text()
    last = json.loads((tmp_path / "gpu_day.json").read_text())["entries"][-1]
    assert (last["part"], last["status"]) == ("correctness", "skipped")


def test_a_journal_continues_after_each_failure(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    journal = Journal("part", path)

    def raises(error: Exception) -> Any:
        raise error

    journal.check("good", lambda: {"number": 1})
    journal.check("wrong", lambda: raises(Refuted("too large", {"number": 2})))
    journal.check("broken", lambda: raises(RuntimeError("no kernel")))
    journal.check("absent", lambda: raises(Skipped("no GPU")))
    entries = read_entries(path)
    assert entries == journal.entries
    assert [entry.status for entry in entries] == ["passed", "failed", "error", "skipped"]
    assert entries[1].result == {"number": 2}
    assert "no kernel" in entries[2].message
    assert [entry.is_failure for entry in entries] == [False, True, True, False]


def test_a_check_in_which_the_process_dies_is_named(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    journal = Journal("part", path)
    journal.check("good", lambda: {})

    def dies() -> Any:
        assert [(entry.name, entry.status) for entry in read_entries(path)] == [("good", "passed"), ("last", "error")]

    journal.check("last", dies)
    assert [entry.status for entry in read_entries(path)] == ["passed", "passed"]


def test_a_part_with_a_missing_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.gpu_day.released", None)  # its import raises ImportError
    run_part("released", day := Day("cpu", True, tmp_path))
    (entry,) = read_entries(day.part_file("released"))
    assert entry.status == "error"
    assert "This part needs the package 'benchmarks.gpu_day.released'" in entry.message


def test_goals_need_a_gpu_and_the_papers_sizes(tmp_path: Path) -> None:
    entry = Entry("training_step", "recipe, tf32", "passed", result={"samples_per_second": 7.0})
    held = {row["statement"]: row["holds"] for row in goals(Day("cuda", False, tmp_path), [entry])}
    assert held["training, samples/s, TF32 (paper: 3.07)"] == "yes"
    assert held["training, samples/s, fuser float32 (paper: 3.07)"] == "not measured"
    assert {row["holds"] for row in goals(Day("cpu", False, tmp_path), [entry])} == {"not measured"}


def test_kernels_are_kept_where_a_prediction_is_far_off() -> None:
    parts_ms = {"ms": {"fuser": 5.0, "sharer_prefill": 1.5}, "predicted_ms": {"fuser": 1.0, "sharer_prefill": 1.0}}
    kernels = [{"name": "gemm", "calls": 3, "ms": 1.0}]
    entries = [
        Entry("inference", "prefill, 170 tokens, tf32", "passed", result=parts_ms),
        Entry("inference", "launches, 170 tokens", "passed", result={"fuser": {"kernels": kernels}}),
    ]
    far, near = comparisons(entries)
    assert (far["ratio"], far["kernels"]) == (5.0, kernels)
    assert "kernels" not in near

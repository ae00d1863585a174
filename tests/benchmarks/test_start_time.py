"""Start times: what is measured, and when a goal counts as missed."""

import json
from pathlib import Path

import pytest

from benchmarks import start_time
from benchmarks.start_time import CASES, IMPORT, TORCH, Case, Timing, judge


def test_the_cpu_time_of_a_process_that_waits_is_less_than_its_wall_time() -> None:
    timing = start_time.run(Case("wait", ["-c", "import time; time.sleep(0.3)"]))
    assert timing.wall > 0.3 > timing.cpu


def test_a_goal_is_about_the_named_time() -> None:
    best = {"wall": Timing(2.0, 0.1), "cpu": Timing(0.1, 2.0)}
    assert judge(Case("wall", [], 1.0), best)["met"] is False
    assert judge(Case("wall", [], 1.0, "cpu"), best)["met"] is True
    assert judge(Case("cpu", [], 1.0, "cpu"), best)["met"] is False
    assert judge(Case("cpu", []), best)["met"] is None


def test_the_import_is_compared_with_that_of_torch() -> None:
    case = next(case for case in CASES if case.name == IMPORT)
    assert judge(case, {IMPORT: Timing(1.25, 1.0), TORCH: Timing(1.0, 1.0)})["met"] is True
    assert judge(case, {IMPORT: Timing(1.35, 1.0), TORCH: Timing(1.0, 1.0)})["met"] is False


def test_a_missed_goal_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case("slow", ["-c", "pass"], 0.0), Case(TORCH, ["-c", "pass"])]
    monkeypatch.setattr(start_time, "CASES", cases)
    assert start_time.main(["--rounds", "1", "--output", str(tmp_path / "times.json")]) == 1
    first, second = json.loads((tmp_path / "times.json").read_text())["cases"]
    assert (first["met"], second["met"]) == (False, None)

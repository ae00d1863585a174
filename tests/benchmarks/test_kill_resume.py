"""Killed runs against runs that were not; and that the benchmark sees a difference where there is one."""

import json
import random
from pathlib import Path

import pytest

from benchmarks.cases import CASES, Case, Dying
from benchmarks.kill_resume import QUICKSTART, main
from benchmarks.killing import BenchContext, Outcome, differences
from benchmarks.watched_fit import read_records


def bench(folder: Path, steps: int) -> BenchContext:
    return BenchContext(folder, QUICKSTART, steps, random.Random(0))


def test_a_killed_and_resumed_run_is_the_same(tmp_path: Path) -> None:
    outcome = bench(tmp_path, 4).try_case(Case(), kills=1)
    assert (outcome.kills, outcome.agreed, outcome.differences) == (1, 1, [])
    assert (tmp_path / "whole" / "records-0.jsonl").read_text().count('"done"') == 4


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(case: Case, tmp_path: Path) -> None:
    outcome = bench(tmp_path, 12).try_case(case, kills=3)
    assert (outcome.agreed, outcome.differences) == (3, [])


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes(before: int, after: int, streaming: bool, tmp_path: Path) -> None:
    made = bench(tmp_path, 8)
    with pytest.raises(RuntimeError, match="exit codes"):
        made.run_once(Case(devices=before, streaming=streaming), tmp_path / "run", Dying(2, 1.1))
    made.run_once(Case(devices=after, streaming=streaming), tmp_path / "run")
    log = (tmp_path / "run" / "log-0.txt").read_text().split()  # lines are broken anywhere
    assert f"this run has {after}" in " ".join(log)
    records, _ = read_records(tmp_path / "run", 0)
    assert max(record["step"] for record in records.values() if "step" in record) == 8
    assert (tmp_path / "run" / "fuser" / "model.safetensors").exists()


def run(folder: Path, *records: dict[str, object], fuser: bytes = b"x") -> Path:
    (folder / "fuser").mkdir(parents=True)
    (folder / "fuser" / "model.safetensors").write_bytes(fuser)
    (folder / "records-0.jsonl").write_text("".join(f"\n{json.dumps(record)}" for record in records))
    return folder


def test_differences_are_named(tmp_path: Path) -> None:
    first, second = {"done": "batch 1", "loss": "0x1"}, {"done": "batch 2", "loss": "0x2"}
    whole = run(tmp_path / "whole", first, second)
    assert differences(whole, run(tmp_path / "same", first, first, second), 1) == []
    assert differences(whole, run(tmp_path / "short", first), 1) == ["batch 2 of process 0 is missing"]
    other = {**second, "loss": "0x3"}
    assert differences(whole, run(tmp_path / "other", first, other), 1) == ["batch 2 of process 0: loss"]
    again = run(tmp_path / "again", first, second, other)
    assert differences(whole, again, 1) == ["batch 2 of process 0, done again"]
    assert differences(whole, run(tmp_path / "fuser", first, second, fuser=b"y"), 1) == ["the final fuser"]


@pytest.mark.parametrize(("found", "code"), [([], 0), (["the final fuser"], 1)])
def test_the_table_the_file_and_the_exit_code(
    found: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(CASES[0], kills=2, resumed=1, agreed=0 if found else 2, differences=found)
    monkeypatch.setattr(BenchContext, "try_case", lambda *_: outcome)
    output = tmp_path / "kills.json"
    assert main(["--kills", "2", "--only", str(CASES[0]), "--output", str(output)]) == code
    said = capsys.readouterr().out
    assert all(text in said for text in ("kills agreed", *found))
    assert json.loads(output.read_text())["cases"][0]["agreed"] == outcome.agreed

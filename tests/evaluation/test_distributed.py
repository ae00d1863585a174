"""Evaluation in two processes, and resumption after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).parent / "evaluate.py"


def start(output: Path, devices: int, limit: int = 11, batch_size: int = 2) -> subprocess.Popen[str]:
    settings = {"output": str(output), "devices": devices, "limit": limit, "batch_size": batch_size}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), json.dumps(settings)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr[-3000:]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().split("\n") if line.endswith("}")]


def answers(output: Path) -> list[tuple[Any, ...]]:
    found = lines(output / "predictions.jsonl")
    return [(p["responder"], p["index"], p["output"], p["correct"]) for p in found]


def test_two_processes_give_the_predictions_of_one_in_order(tmp_path: Path) -> None:
    """Eleven questions in batches of two: three batches a process, the last one with one question."""
    for devices in (1, 2):
        finish(start(tmp_path / str(devices), devices))
    assert answers(tmp_path / "1") == answers(tmp_path / "2")
    assert len(answers(tmp_path / "2")) == 33
    assert not (tmp_path / "2" / ".parts").exists()
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in "12"]
    first, second = (
        {name: (line["accuracy"], line["n"]) for name, line in r["benchmarks"]["quickstart"]["responders"].items()}
        for r in reports
    )
    assert first == second


def test_killed_evaluation_resumes(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(output, 1, limit=60, batch_size=1)
    part = output / ".parts" / "0.jsonl"
    deadline = time.monotonic() + 400
    while not (part.is_file() and part.stat().st_size > 5_000):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = lines(part)
    assert 0 < len(before) < 180
    finish(start(output, 1, limit=60, batch_size=1))
    after = {(p["responder"], p["index"]): p for p in lines(output / "predictions.jsonl")}
    assert len(after) == len(lines(output / "predictions.jsonl")) == 180
    # Answers from before the kill are kept unchanged, their times included.
    assert all(after[p["responder"], p["index"]] == p for p in before)

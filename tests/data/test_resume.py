"""Killed runs against runs that were not: the same batches, losses and weights, bit for bit."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.resumable_fit import Run
from tests.data.rows import write_chat

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _go(run: Run, must_die: bool = False) -> None:
    import os

    Path(run.folder).mkdir(exist_ok=True)
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(run.start(), capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert (done.returncode != 0) == must_die, done.stderr[-3000:]


def _steps(run: Run) -> list[dict[int, dict[str, Any]]]:
    """For each process its batches by number; a batch that was done twice must have been the same twice."""
    processes = []
    for rank in range(run.devices):
        batches: dict[int, dict[str, Any]] = {}
        for line in Path(run.folder, f"steps-{rank}.jsonl").read_text().splitlines():
            step = json.loads(line)
            assert batches.setdefault(step["batch"], step) == step
        processes.append(batches)
    return processes


def _weights(run: Run) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(f"{run.folder}/final.pt", weights_only=True)
    return weights


def _assert_same(whole: Run, killed: Run) -> None:
    assert _steps(killed) == _steps(whole)
    expected = _weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in _weights(killed).items())


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    return [write_chat(tmp_path / "a.jsonl", 40), write_chat(tmp_path / "b.jsonl", 20, seed=1)]


CASES = {
    "plain": {},
    "workers": {"workers": 2},
    "accumulation": {"accumulate": 3, "steps": 8, "save_every": 2},
    "mixture and token budget": {"mixture": True, "limits": {"max_tokens_per_batch": 400}, "workers": 2},
    "stream": {"streaming": True},
    "stream with workers": {"streaming": True, "workers": 2, "mixture": True},
    "two processes": {"devices": 2, "workers": 2},
    "two processes, stream": {"devices": 2, "streaming": True, "mixture": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_is_the_same(case: str, data: list[str], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 26, **CASES[case]}
    whole = Run(str(tmp_path / "whole"), data, **settings)
    _go(whole)
    killed = replace(whole, folder=str(tmp_path / "killed"))
    # In the first epoch, in the middle of a checkpoint, and in a later epoch.
    _go(replace(killed, kill_at_batch=7), must_die=True)
    _go(replace(killed, kill_in_save=2), must_die=True)
    _go(replace(killed, kill_at_batch=23), must_die=True)
    _go(killed)
    _assert_same(whole, killed)


def _rows(run: Run, epoch: int) -> Sequence[list[int]]:
    return sorted(
        row for steps in _steps(run) for step in steps.values() if step["epoch"] == epoch for row in step["rows"]
    )

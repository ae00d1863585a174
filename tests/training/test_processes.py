"""Two processes train what one trains."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "two_processes.py"


def train(models: Path, output: Path, devices: int, count: int, **choices: Any) -> dict[str, torch.Tensor]:
    settings = {"models": str(models), "output": str(output), "devices": devices, "count": count, "choices": choices}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    weights: dict[str, torch.Tensor] = torch.load(output, weights_only=True)
    return weights


def test_two_processes_are_one_with_the_same_rows(models: Path, tmp_path: Path) -> None:
    """Unequal token counts between processes and between accumulated batches; only the order of sums differs."""
    # Adam divides by the gradient's own size, which makes rounding in tiny gradients large: plain steps show the maths.
    choices = {"gate_noise": "none", "plain": True, "lr": 0.1}
    one, two = (train(models, tmp_path / f"{n}.pt", n, 20, **choices) for n in (1, 2))
    fresh = train(models, tmp_path / "fresh.pt", 1, 1, **{**choices, "lr": 0.0})
    assert max((one[name] - value).abs().max() for name, value in fresh.items()) > 0.01
    assert max((one[name] - value).abs().max() for name, value in two.items()) < 1e-6


@pytest.mark.parametrize("choices", [{"gate_noise": "none", "gate_init": -1.0}, {"gate_noise": "logistic"}])
def test_gates_that_are_shut_or_without_noise(choices: dict[str, Any], models: Path, tmp_path: Path) -> None:
    train(models, tmp_path / "x.pt", 2, 2, **choices)

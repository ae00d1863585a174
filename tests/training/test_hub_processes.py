"""Two processes train a hub as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from c2c_lightning.export.hub_directory import load_hub
from tests.training import hub_processes
from tests.training.hubs import save_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_two_processes_train_the_same_hub_as_one(tmp_path: Path) -> None:
    save_models(tmp_path / "models")
    hub_processes.run(tmp_path, 1)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.training.hub_processes", str(tmp_path), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (torch.load(tmp_path / f"{n}_processes/result.pt", weights_only=True) for n in (1, 2))
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=1e-4, atol=1e-6)
    # Rows are swapped within a batch, and two processes have other batches.
    losses = [{k: v for k, v in of["losses"].items() if "mismatched" not in k} for of in (one, two)]
    assert len(losses[0]) == 14, "with fusion and of the receiver alone, for each direction and their means"
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name, tensor in load_hub(tmp_path / "2_processes/hub").fuser.state_dict().items():
        assert torch.equal(tensor, two["weights"][name]), name

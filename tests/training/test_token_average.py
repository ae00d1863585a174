"""Counting what a step learns from, in one process and in several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from c2c_lightning.training.callbacks.token_average import TokenCount
from tests.training.runs import module


def test_batches_of_a_step_are_counted_together_and_steps_apart() -> None:
    count = TokenCount()
    for tokens in (3, 0, 2**20):
        count.add(torch.tensor(tokens))
    assert float(count.take()) == 2**20 + 3
    count.add(torch.tensor(7))
    assert float(count.take()) == 7
    with pytest.raises(RuntimeError, match="no batch was counted"):
        count.take()


def test_processes_do_not_send_each_other_what_they_all_set(models: Path) -> None:
    made = module(models)
    made.configure_model()
    names = {name for name, _ in made.named_buffers()}
    assert any(name.endswith("temperature") for name in names)
    assert names == set(made._ddp_params_and_buffers_to_ignore)


ONE_OF_TWO = """
import sys
import torch
from torch import distributed
from c2c_lightning.training.callbacks.token_average import TokenCount

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
count = TokenCount()
for tokens in ([3, 5], [10, 20])[rank]:
    count.add(torch.tensor(tokens), processes=2)
alone = TokenCount()
alone.add(torch.tensor(rank))
print(float(count.take()), float(alone.take()))
"""


def test_processes_count_together_unless_they_train_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_OF_TWO]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], env=environment, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert said == [["38.0", "0.0"], ["38.0", "1.0"]]

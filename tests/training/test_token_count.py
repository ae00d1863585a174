"""Counting what a step learns from; across processes: `test_processes.py`."""

from pathlib import Path

import pytest
import torch

from c2c_lightning.training.token_count import TokenCount
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

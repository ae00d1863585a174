"""The savings of the training step, each taken back: the step computes the same without it."""

import pytest
import torch

from benchmarks import step_changes
from benchmarks.step_changes import SAVINGS
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.workload import Workload
from tests.profiling.pairs import tiny


def _work() -> tuple[C2CModel, list[TrainingBatch]]:
    workload = Workload(num_samples=4, batch_size=2, batching="as_drawn", prompt_range=(4, 24), response_range=(2, 6))
    return tiny(attention="sdpa").build("cpu"), workload.batches(64, 1)


def _weights() -> torch.Tensor:
    model, batches = _work()
    torch.manual_seed(0)  # of the gate noise
    trainer = step_changes.Trainer(model)
    trainer.steps(batches)
    return torch.cat([p.detach().flatten() for p in model.fuser.parameters()])


@pytest.mark.parametrize("name", SAVINGS)
def test_without_a_saving_a_step_does_the_same(name: str) -> None:
    expected = _weights()
    with SAVINGS[name]():
        found = _weights()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)

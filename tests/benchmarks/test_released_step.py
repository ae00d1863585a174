"""The two sides of the comparison learn the same, and the plain one works more for it."""

import torch

from benchmarks.released_step import ReleasedTrainer, compare
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import Workload
from tests.profiling.pairs import tiny
from tests.training.released_weights import released_weights


def _work() -> tuple[C2CModel, list[TrainingBatch]]:
    workload = Workload(num_samples=4, batch_size=2, batching="as_drawn", prompt_range=(4, 40), response_range=(2, 6))
    return tiny(attention="sdpa", gate_noise="none").build("cpu"), workload.batches(64, 1)


def test_both_sides_learn_the_same() -> None:
    (model, batches), (other, _) = _work(), _work()
    for fused in (model, other):
        fused.fuser.force_gates(is_open=True)
    before = released_weights(model.fuser)
    released = ReleasedTrainer(other)
    released.training.has_noise = False
    Trainer(model).steps(batches)
    released.steps(batches)
    for number, after in enumerate(released_weights(model.fuser)):
        for layer, weights in after.items():
            for name, weight in weights.items():
                theirs = released.training.projectors[number][layer][name]
                torch.testing.assert_close(weight, theirs.detach(), rtol=1e-4, atol=2e-5)
    assert not torch.equal(released_weights(model.fuser)[0][0]["key_in.weight"], before[0][0]["key_in.weight"])


def test_the_plain_side_works_more() -> None:
    results = compare(*_work(), rounds=1)
    assert results["flop"]["released"] > 1.1 * results["flop"]["ours"]
    assert results["ratio"] == results["seconds"]["released"][0] / results["seconds"]["ours"][0]

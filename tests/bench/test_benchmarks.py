"""Each benchmark on a tiny pair: what it reports is what it ran."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.bench.answers import Answers
from c2c_lightning.bench.benchmark import Bench, Benchmark
from c2c_lightning.bench.decode import Decode
from c2c_lightning.bench.prefill import Prefill, first_logits
from c2c_lightning.bench.train_step import Trainer, TrainStep
from c2c_lightning.bench.workload import Workload, equal_batch
from tests.bench.pairs import tiny


def run(benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """A benchmark's result, which must be plain JSON of finite numbers, and say how many rounds it takes."""
    rounds: list[int] = []

    def progress(total: int) -> Any:
        rounds.append(total)
        return lambda: rounds.append(-1)

    result = benchmark.run(Bench(tiny(attention="sdpa"), torch.device("cpu"), folder, progress))
    assert rounds == [rounds[0]] + [-1] * rounds[0]
    json.dumps(result, allow_nan=False)
    return result


def test_the_training_step(tmp_path: Path) -> None:
    workload = Workload(num_samples=5, batch_size=2)
    result = run(TrainStep(workload, rounds=2, product_size=16, products=2), tmp_path)
    lengths = workload.lengths()
    assert (result["samples"], result["steps"]) == (5, 3)
    assert result["tokens"] == lengths.real_tokens
    assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["time"]["seconds"])
    assert result["needed_gflop"] == pytest.approx(sum(result["needed_gflop_by_part"].values()))
    assert result["share_of_product_rate"] > 0


def test_its_step_teaches_the_fuser_and_nothing_else() -> None:
    model, batch = tiny().build("cpu"), equal_batch(2, 9, 4, 96)
    before = {name: weight.clone() for name, weight in model.fuser.named_parameters()}
    frozen = [weight.clone() for lm in (model.receiver, *model.sharers) for weight in lm.model.parameters()]
    Trainer(model).step(batch)
    # The gates' rate is as small as all others', but each of them moves.
    assert all(not torch.equal(weight, before[name]) for name, weight in model.fuser.named_parameters())
    after = [weight for lm in (model.receiver, *model.sharers) for weight in lm.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))


def test_prefill(tmp_path: Path) -> None:
    result = run(Prefill(prompt_tokens=12, batch_size=2, rounds=2), tmp_path)
    assert set(result["seconds"]) == {
        *("with_fusion", "sharer_prefill", "receiver_prefill", "fuser"),
        *("receiver_alone", "sharer_0_alone"),
    }
    assert result["ratio"] > 0


def test_prefill_with_fusion_gives_the_logits_of_the_first_new_token() -> None:
    model = tiny(gate_init=1.0).build("cpu").eval()
    prompt = equal_batch(2, 9, 1, 96).prompt
    with torch.no_grad():
        logits = first_logits(model, prompt)
        expected = model(prompt, torch.zeros(2, 1, dtype=torch.long)).logits[:, :1]
    torch.testing.assert_close(logits, expected)


def test_decode(tmp_path: Path) -> None:
    result = run(Decode(prompt_tokens=12, new_tokens=5, rounds=2), tmp_path)
    assert result["ratio"] > 0
    assert all(seconds > 0 for seconds in result["seconds_per_token"].values())


def test_answers(tmp_path: Path) -> None:
    result = run(Answers(prompt_tokens=12, message_tokens=8, new_tokens=4, rounds=1), tmp_path)
    tokens = result["tokens"]
    assert {name: tokens[name]["new"] for name in tokens} == {"receiver": 4, "t2t": 4, "c2c": 4}
    assert tokens["t2t"]["message"] == 8
    assert tokens["c2c"]["read_by_sharer"] == tokens["receiver"]["read_by_receiver"]
    assert tokens["t2t"]["read_by_receiver"] > tokens["c2c"]["read_by_receiver"]
    assert result["phases"]["t2t"]["message"] < result["seconds"]["t2t"]
    assert math.isclose(result["t2t_over_c2c"], result["seconds"]["t2t"] / result["seconds"]["c2c"])

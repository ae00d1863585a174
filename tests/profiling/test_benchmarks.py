"""Each benchmark on a tiny pair: what it reports is what it ran."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.paper_size import PaperSize
from c2c_lightning.profiling.answer_latency import AnswerLatency
from c2c_lightning.profiling.benchmark import BenchContext, Benchmark
from c2c_lightning.profiling.data_loading import DataLoading
from c2c_lightning.profiling.decode_latency import DecodeLatency
from c2c_lightning.profiling.prefill_latency import PrefillLatency, first_logits
from c2c_lightning.profiling.sweep import Sweep, growth
from c2c_lightning.profiling.train_step import Trainer, TrainStep
from c2c_lightning.profiling.workload import Workload, equal_batch
from tests.profiling.pairs import tiny


def run(benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """A benchmark's result, which must be plain JSON of finite numbers, and say how many rounds it takes."""
    rounds: list[int] = []

    def progress(total: int) -> Any:
        rounds.append(total)
        return lambda: rounds.append(-1)

    result = benchmark.run(BenchContext(tiny(attention="sdpa"), torch.device("cpu"), folder, progress))
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


@pytest.mark.parametrize("mode", ["prompt", "decode"])
def test_the_training_step_of_the_other_fusion_modes(mode: str, tmp_path: Path) -> None:
    step = TrainStep(Workload(num_samples=2, batch_size=2), mode, rounds=1, product_size=16, products=1)
    result = run(step, tmp_path)
    assert result["tokens_per_second"] > 0
    assert "needed_gflop" not in result


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
    result = run(PrefillLatency(prompt_tokens=12, batch_size=2, rounds=2), tmp_path)
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
    result = run(DecodeLatency(prompt_tokens=12, new_tokens=5, rounds=2), tmp_path)
    assert result["ratio"] > 0
    assert all(seconds > 0 for seconds in result["seconds_per_token"].values())


def test_answers(tmp_path: Path) -> None:
    result = run(AnswerLatency(prompt_tokens=12, message_tokens=8, new_tokens=4, rounds=1), tmp_path)
    tokens = result["tokens"]
    assert {name: tokens[name]["new"] for name in tokens} == {"receiver": 4, "t2t": 4, "c2c": 4}
    assert tokens["t2t"]["message"] == 8
    assert tokens["c2c"]["read_by_sharer"] == tokens["receiver"]["read_by_receiver"]
    assert tokens["t2t"]["read_by_receiver"] > tokens["c2c"]["read_by_receiver"]
    assert result["phases"]["t2t"]["message"] < result["seconds"]["t2t"]
    assert math.isclose(result["t2t_over_c2c"], result["seconds"]["t2t"] / result["seconds"]["c2c"])


def test_loading(tmp_path: Path) -> None:
    workload = Workload(num_samples=10, batch_size=2, prompt_range=(16, 32), response_range=(4, 8))
    result = run(DataLoading(workload, steps=2, rounds=1), tmp_path)
    # A message is enclosed in two words, and the answer's first one ends the prompt.
    assert result["tokens"] == workload.lengths().real_tokens + 4 * 10
    assert result["loading_tokens_per_second"] > result["training_tokens_per_second"]
    assert result["ratio"] > 1


def test_a_sweep_fits_and_draws(tmp_path: Path) -> None:
    result = run(Sweep(over="batch_size", sizes=[1, 2, 4], prompt_tokens=8, response_tokens=4, rounds=1), tmp_path)
    assert [point["size"] for point in result["points"]] == [1, 2, 4]
    assert result["growth"]["needed_gflop_of_step"]["exponent"] == pytest.approx(1)
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")


def test_growth_is_the_exponent() -> None:
    fit = growth([1, 2, 4, 8], [3.0 * size**1.5 for size in (1, 2, 4, 8)])
    assert fit == pytest.approx({"exponent": 1.5, "factor": 3.0, "r2": 1.0})
    assert growth([1, 2, 4, 8], [1.0, 2.0, 9.0, 3.0])["r2"] < 0.9


def test_paper_size(tmp_path: Path) -> None:
    result = run(PaperSize(prompt_tokens=12, response_tokens=4, steps=2), tmp_path)
    predicted = result["predicted"]
    assert predicted["is_predicted"]
    assert predicted["assumed"]["flop_rate"] == 989e12
    assert set(predicted["seconds_by_part"]) == {*result["needed_tflop_by_part"], "optimizer"}
    # A pair as small as this one is launched for longer than it computes.
    assert predicted["seconds_per_step"] == predicted["seconds_of_launches"] > 0
    assert result["fuser_mib"] == pytest.approx(sum(w.nbytes for w in tiny().build("cpu").fuser.parameters()) / 2**20)

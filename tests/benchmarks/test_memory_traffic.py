"""Bytes and predicted seconds, against sums made by hand."""

from dataclasses import replace

import pytest

from benchmarks.memory_traffic import Accelerator, Efficiency, predicted_seconds, step_bytes
from c2c_lightning.profiling.flops import Sample, StepWork
from c2c_lightning.profiling.shapes import PairShape
from tests.profiling.pairs import tiny

PARTS = StepWork(1000, 0, 4000, 0, 0, 0)
GPU = Accelerator(flop_rate=100.0, fuser_flop_rate=50.0, bandwidth=10.0)


def test_weights_are_moved_once_a_pass_and_tokens_once_each() -> None:
    model = tiny().build("cpu")
    pair, sample = PairShape.of(model), Sample.shared(10, 3)
    one, two = step_bytes(pair, [sample], width=4), step_bytes(pair, [sample, sample], width=4)
    layers = model.receiver.model.model.layers
    weights = sum(w.nbytes for layer in layers for name, w in layer.named_parameters() if name.endswith("proj.weight"))
    assert 2 * one["receiver_prefill"] - two["receiver_prefill"] == weights
    fuser = sum(w.nbytes for w in model.fuser.parameters() if w.ndim == 3 and min(w.shape[1:]) > 1)
    assert 2 * one["fuser_forward"] - two["fuser_forward"] == fuser
    assert one["optimizer"] == two["optimizer"] == 10 * fuser


def test_half_the_width_is_half_the_bytes_of_the_frozen_models_alone() -> None:
    pair, sample = PairShape.of(tiny().build("cpu")), Sample.shared(10, 3)
    wide, narrow = step_bytes(pair, [sample], width=4), step_bytes(pair, [sample], width=2)
    assert all(wide[part] == (1 if part.startswith(("fuser", "optimizer")) else 2) * narrow[part] for part in wide)


@pytest.mark.parametrize(("bandwidth", "expected"), [(10.0, (20.0, 160.0, 40.0)), (1.0, (20.0, 160.0, 400.0))])
def test_a_part_takes_as_long_as_the_slower_of_its_two(bandwidth: float, expected: tuple[float, ...]) -> None:
    moved = {"sharer_prefill": 10, "fuser_forward": 80, "optimizer": 200}
    gpu = replace(GPU, bandwidth=bandwidth)
    seconds = predicted_seconds(PARTS, moved, gpu, Efficiency(flop=0.5, bandwidth=0.5))
    assert tuple(seconds.values()) == expected

"""Gates and head weights over a data set, against a second computation of the weights."""

import pytest
import torch

from c2c_lightning.analysis.fused_entries import collect_entries
from c2c_lightning.analysis.fuser_pictures import gate_figure
from c2c_lightning.analysis.gate_report import gate_report, recorded_weights
from tests.evaluation.conftest import fused_pair

QUESTIONS = [[{"role": "user", "content": text}] for text in ("What is the capital of Arlen?", "Name a city.")]


def test_weights_are_the_mean_over_fused_tokens() -> None:
    model = fused_pair()
    prompt = model.encode(QUESTIONS)
    report = gate_report(model, [prompt])
    fused = int((prompt.sharers[0].index[:, :-1] >= 0).sum())
    assert report.tokens == fused
    # The first layer's inputs are no other than the clean entries, so its weights can be computed apart.
    entries = collect_entries(model, [prompt], fused)
    group = model.fuser.sharers[0].groups[0]
    part = group.keys  # type: ignore[attr-defined]
    both = torch.cat([torch.stack(entries.sharer.keys), torch.stack(entries.receiver.keys)], -1)
    with torch.no_grad():
        weights = part.weighting(part.features(both))
    layer = group.receiver_layers[0]
    assert torch.allclose(report.weights[0, "keys", layer], weights[0, :, :, 0].mean(0), atol=1e-5)


def test_intervals_are_over_batches() -> None:
    model = fused_pair()
    batches = [model.encode([question]) for question in QUESTIONS]
    one, two = gate_report(model, [model.encode(QUESTIONS)]), gate_report(model, batches)
    assert one.to_json()["sharers"][0]["keys"]["weight_ci95"][0] == [None, None]
    parts = [float(gate_report(model, [batch]).weights[0, "keys", 0].mean()) for batch in batches]
    assert parts[0] != parts[1]
    # Two batches: resamples are either of them twice, or both.
    assert two.intervals[0, "keys", 0] == pytest.approx((min(parts), max(parts)))
    assert torch.allclose(two.weights[0, "keys", 0], one.weights[0, "keys", 0], atol=1e-5)


def test_closed_gates_count_as_zero() -> None:
    model = fused_pair()
    prompt = model.encode(QUESTIONS)
    report = gate_report(model, [prompt])
    assert bool((report.effective(0, "values").nan_to_num() >= 0).all())
    assert report.to_json()["sharers"][0]["open_fraction"] == 1.0
    model.fuser.force_gates(is_open=False)
    closed = gate_report(model, [prompt])
    assert closed.effective(0, "keys").nan_to_num().abs().max() == 0
    assert closed.to_json()["sharers"][0]["open_fraction"] == 0.0


def test_hooks_are_removed_after_an_error() -> None:
    model = fused_pair()
    with pytest.raises(KeyError), recorded_weights(model.fuser, lambda *_: None):
        raise KeyError
    assert not any(module._forward_hooks for module in model.fuser.modules())


def test_axes_of_the_picture_have_whole_numbers() -> None:
    model = fused_pair()
    figure = gate_figure({"some": gate_report(model, [model.encode(QUESTIONS)])}, 0)
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for axes in figure.axes[:2] for tick in axes.get_xticks())

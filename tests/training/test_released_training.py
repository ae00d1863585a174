"""The shipped recipe is the released training, number by number."""

from pathlib import Path

import pytest

from tests.training.recipe import AS_RELEASED, CASES, CLIP, STEPS, fit_recipe, gates_of, rows, weight_difference


@pytest.mark.parametrize(("noise", "sharers"), CASES.values(), ids=CASES)
def test_the_recipe_is_the_released_training(models: Path, tmp_path: Path, noise: str, sharers: int) -> None:
    recorder = fit_recipe(tmp_path, models, sharers, [*AS_RELEASED, "--model.fuser.gate_noise", noise])
    ours = recorder.run
    assert len(ours.norms) == STEPS
    assert [row for row in rows(recorder, has_noise=noise == "gumbel") if not row.maximum <= row.tolerance] == []
    # Prompts of a batch are padded, and batches have different numbers of supervised tokens.
    assert any((batch.prompt.receiver.mask == 0).any() for batch in recorder.epochs[0])
    assert len({int(batch.response_mask.sum()) for batch in recorder.epochs[0]}) > 3
    # Nothing of this holds by default: every step was clipped, every rate but the first moved the weights.
    assert min(ours.norms) > CLIP
    assert ours.rates[0] == 0 < min(ours.rates[1:])
    assert weight_difference(ours.weights, recorder.start) > 0.01
    gates = weight_difference(gates_of(ours.weights), gates_of(recorder.start))
    assert gates > 1e-3 if noise == "gumbel" else gates == 0

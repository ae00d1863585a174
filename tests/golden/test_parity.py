"""The released code's numbers on the same weights: caches and losses to 1e-5, logits and gradients to 1e-4."""

from collections.abc import Iterable

import pytest
import torch

from tests.golden.parity import (
    Golden,
    Row,
    all_rows,
    answer_rows,
    cache_rows,
    generation_rows,
    gradient_rows,
    response_rows,
    training_rows,
)

SINGLE, CASES = ("single.0", "single.1"), ("single.0", "single.1", "batch")


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


def agree(rows: Iterable[Row]) -> None:
    seen = list(rows)
    assert seen
    assert [row for row in seen if not row.maximum <= row.tolerance] == []


@pytest.mark.parametrize("name", CASES)
def test_caches(golden: Golden, name: str) -> None:
    agree(cache_rows(golden, name))


@pytest.mark.parametrize("name", CASES)
def test_logits_and_loss(golden: Golden, name: str) -> None:
    agree(answer_rows(golden, name))


def test_cache_of_the_response(golden: Golden) -> None:
    agree(response_rows(golden))


@pytest.mark.parametrize("name", SINGLE)
def test_greedy_tokens(golden: Golden, name: str) -> None:
    agree(generation_rows(golden, name))


def test_gradients_in_evaluation_mode(golden: Golden) -> None:
    prompt, response = golden.case("batch")
    agree(gradient_rows(golden, golden.model(prompt, response).loss, "batch.eval"))


def test_training_mode_with_recorded_noise(golden: Golden) -> None:
    agree(training_rows(golden))


def test_training_without_noise_is_evaluation(golden: Golden) -> None:
    """`batch.nonoise_equals_eval` of the recording."""
    prompt, response = golden.case("batch")
    config = golden.model.fuser.config
    golden.model.fuser.config = type(config)(**{**vars(config), "gate_noise": "none"})
    golden.model.train()
    try:
        loss = golden.model(prompt, response).loss
    finally:
        golden.model.eval()
        golden.model.fuser.config = config
    torch.testing.assert_close(loss, golden["batch.eval.loss"], atol=1e-5, rtol=0)


def test_every_recorded_tensor_is_compared(golden: Golden) -> None:
    agree(all_rows(golden))
    unread = {
        name.split(".", 2)[-1] if name.startswith("single") else name for name in golden.tensors.keys() - golden.read
    }
    assert unread == {
        *("attention_mask", "position_ids", "section_masks"),
        *("batch.attention_mask", "batch.position_ids", "batch.section_masks"),
    }


def test_positions_are_the_recorded_ones(golden: Golden) -> None:
    for name in CASES:
        prompt, _ = golden.case(name)
        assert (golden[f"{name}.attention_mask"] == 1).all()
        assert torch.equal(
            prompt.receiver.positions, golden[f"{name}.position_ids"][:, : prompt.num_receiver_tokens].long()
        )


def test_a_wrong_gate_would_be_seen(golden: Golden) -> None:
    """The comparison can fail: with one gate flipped it does."""
    gate = next(iter(golden.model.fuser.gates()))[2]
    before = gate.logit.detach().clone()
    with torch.no_grad():
        gate.logit[0] = -1.0
    try:
        with pytest.raises(AssertionError, match=r"single.0.fused_kv"):
            agree(cache_rows(golden, "single.0"))
    finally:
        with torch.no_grad():
            gate.logit.copy_(before)

"""Losses by position against the model's own loss, and the refusal of edges that do not increase."""

import math

import pytest
import torch

from c2c_lightning.analysis.loss_by_position import loss_by_position, token_losses
from c2c_lightning.data.preprocessing.row_encoder import training_batches
from c2c_lightning.data.sources.chat import Messages
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen

ROWS = Messages("embedded:facts/heldout_chat")


@pytest.fixture(scope="module")
def model() -> C2CModel:
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, gate_init=1.0, token_alignment="span")
    return C2CModel(load_frozen("embedded:receiver"), [load_frozen("embedded:sharer")], config).eval()


def test_token_losses_are_those_of_the_forward_pass(model: C2CModel) -> None:
    (batch,) = training_batches(ROWS, model.encoder, 6, 6)
    losses = token_losses(model, batch)
    with torch.no_grad():
        expected = model(batch.prompt, batch.response_ids, batch.response_mask).loss
    assert float(losses[batch.response_mask].mean()) == pytest.approx(float(expected), rel=1e-5)


def test_spans_divide_all_supervised_tokens(model: C2CModel) -> None:
    batches = training_batches(ROWS, model.encoder, 10, 4)
    (whole,), parts = loss_by_position(model, batches, []), loss_by_position(model, batches, [1, 3])
    assert sum(part.tokens for part in parts) == whole.tokens == sum(int(b.response_mask.sum()) for b in batches)
    for who, loss in whole.loss.items():
        mean = sum(part.loss[who] * part.tokens for part in parts if part.tokens) / whole.tokens
        assert mean == pytest.approx(loss, rel=1e-4), who
    assert whole.ci95[0] <= whole.transferred <= whole.ci95[1]


def test_closed_gates_transfer_nothing(model: C2CModel) -> None:
    closed = C2CModel(model.receiver, model.sharers, model.fuser.config).eval()
    closed.fuser.force_gates(is_open=False)
    (span,) = loss_by_position(closed, training_batches(ROWS, closed.encoder, 4, 4), [])
    assert span.transferred == 0
    assert span.loss["c2c"] == pytest.approx(span.loss["receiver"], rel=1e-5)


def test_a_batch_of_one_row_is_left_out_and_an_empty_span_has_no_loss(model: C2CModel) -> None:
    spans = loss_by_position(model, training_batches(ROWS, model.encoder, 3, 2), [1000])
    assert [span.rows for span in spans] == [2, 0]
    assert math.isnan(spans[1].loss["c2c"])
    assert math.isnan(spans[1].transferred)


@pytest.mark.parametrize("edges", [[0], [4, 4], [5, 2]])
def test_edges_must_increase(edges: list[int], model: C2CModel) -> None:
    with pytest.raises(ConfigurationError, match="edges"):
        loss_by_position(model, [], edges)

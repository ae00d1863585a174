"""Ragged batches of responses: all rows run as one, and nobody notices."""

from unittest.mock import patch

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.output_head import ModelHead
from tests.tiny import tiny_pair

PROMPTS, RESPONSES = (70, 9, 12, 66), (60, 4, 7, 3)


def _model(mode: str, receiver: str) -> C2CModel:
    torch.manual_seed(0)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, fusion_mode=mode)
    model = C2CModel(load_frozen(tiny_pair(receiver, 0)), [load_frozen(tiny_pair("qwen2", 1))], config)
    model.fuser.force_gates(is_open=True)
    return model.eval()


def _batch(rows: tuple[int, ...]) -> TrainingBatch:
    """Those rows of one and the same ragged batch, with the padding that they need."""
    source = torch.Generator().manual_seed(3)
    texts = [torch.randint(3, 300, (2, max(PROMPTS)), generator=source) for _ in PROMPTS]
    width, length = max(PROMPTS[row] for row in rows), max(RESPONSES[row] for row in rows)
    mask = torch.stack([torch.arange(width) >= width - PROMPTS[row] for row in rows]).long()
    ids = torch.stack([texts[row][0, -width:] for row in rows]) * mask
    supervised = torch.stack([torch.arange(length) < RESPONSES[row] for row in rows])
    response = torch.stack([texts[row][1, :length] for row in rows]) * supervised
    return TrainingBatch(PromptBatch.shared(ids, mask), response, supervised)


def _loss_and_gradients(model: C2CModel, batch: TrainingBatch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    loss = model.response_loss(batch)
    weights = [p for name, p in model.fuser.named_parameters() if "gate" not in name]
    return loss.detach(), torch.autograd.grad(loss, weights)


@pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
@pytest.mark.parametrize("receiver", ["qwen3", "gemma3"])
def test_loss_and_gradients_are_the_sums_of_the_rows(mode: str, receiver: str) -> None:
    model, every = _model(mode, receiver), tuple(range(len(PROMPTS)))
    passes: list[tuple[int, ...]] = []
    body = model.receiver.model.base_model

    def seen(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if torch.is_grad_enabled():
            passes.append(tuple(kwargs["input_ids"].shape))

    handle = body.register_forward_pre_hook(seen, with_kwargs=True)
    loss, gradients = _loss_and_gradients(model, _batch(every))
    handle.remove()
    # The last prompt token and all response tokens but the last, no padding.
    assert passes == [(1, sum(RESPONSES))]

    alone = [_loss_and_gradients(model, _batch((row,))) for row in every]
    torch.testing.assert_close(loss, sum(single for single, _ in alone), rtol=1e-5, atol=1e-5)
    for number, gradient in enumerate(gradients):
        expected = torch.stack([single[number] for _, single in alone]).sum(0)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()) + 1e-7)


def test_loss_is_that_of_the_logits() -> None:
    model, batch = _model("prefill", "qwen3"), _batch((0, 1, 2, 3))
    mean = model(batch.prompt, batch.response_ids, batch.response_mask).loss
    torch.testing.assert_close(model.response_loss(batch) / batch.response_mask.sum(), mean)


@pytest.mark.parametrize("supervised", [[5, 6, 7], [0, 9], [3]])
def test_responses_whose_first_tokens_or_some_between_do_not_count(supervised: list[int]) -> None:
    model, batch = _model("prefill", "qwen3"), _batch((0, 1, 2, 3))
    mask = torch.zeros_like(batch.response_mask)
    mask[:, :2], mask[0] = batch.response_mask[:, :2], False
    mask[0, supervised] = True
    mean = model(batch.prompt, batch.response_ids, mask).loss
    torch.testing.assert_close(
        model.response_loss(TrainingBatch(batch.prompt, batch.response_ids, mask)) / mask.sum(), mean
    )


def test_logits_are_made_when_asked_for_and_those_of_the_padded_rows() -> None:
    model, batch = _model("prefill", "qwen3"), _batch((0, 1, 2, 3))
    packed = model(batch.prompt, batch.response_ids, batch.response_mask)
    with patch.object(FrozenLM, "supports_ragged", False):
        padded = model(batch.prompt, batch.response_ids, batch.response_mask)
    with torch.no_grad():
        assert packed.logits.requires_grad
    real = torch.nn.functional.pad(batch.response_mask, (1, 0), value=True)
    torch.testing.assert_close(packed.logits[real], padded.logits[real], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed.loss, padded.loss)
    expected = torch.nn.functional.cross_entropy(
        packed.logits[:, :-1][batch.response_mask], batch.response_ids[batch.response_mask]
    )
    torch.testing.assert_close(packed.loss, expected)
    assert packed.logits is packed.logits


def test_the_loss_by_the_models_own_head_is_the_same() -> None:
    model, batch = _model("prefill", "gemma3"), _batch((0, 1, 2, 3))
    expected = _loss_and_gradients(model, batch)
    with patch.object(FrozenLM, "head", ModelHead(model.receiver.model)):
        torch.testing.assert_close(_loss_and_gradients(model, batch), expected)

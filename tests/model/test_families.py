"""Every receiver with every sharer: unequal layers, heads and head widths, sliding windows, mixtures of experts."""

from functools import cache

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import FAMILIES, WINDOW, tiny_pair

NAMES = list(FAMILIES)
# Each family once on either side, and the pairs of the paper; the rest is slow by number only.
FAST = {(name, NAMES[(number + 1) % len(NAMES)]) for number, name in enumerate(NAMES)}
FAST |= {("qwen3", "qwen2"), ("qwen3", "llama"), ("qwen3", "gemma3"), ("gemma3", "qwen3"), ("qwen3", "qwen3")}
PAIRS = [
    pytest.param(receiver, sharer, marks=() if (receiver, sharer) in FAST else pytest.mark.slow)
    for receiver in NAMES
    for sharer in NAMES
]
matrix = pytest.mark.parametrize(("receiver", "sharer"), PAIRS)

LENGTHS = (WINDOW + 9, WINDOW + 2, 5)
"""Prompts longer than a window, and one that fits into it."""


@cache
def frozen(family: str, seed: int) -> FrozenLM:
    return load_frozen(tiny_pair(family, seed))


def build(receiver: str, sharer: str) -> C2CModel:
    """A random fuser with all gates open."""
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0)
    model = C2CModel(frozen(receiver, 0), [frozen(sharer, 1)], config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def prompts() -> PromptBatch:
    """A left-padded batch of prompts of unequal lengths."""
    width = max(LENGTHS)
    ids = torch.randint(3, 300, (len(LENGTHS), width), generator=torch.Generator().manual_seed(5))
    mask = torch.stack([torch.arange(width) >= width - length for length in LENGTHS]).long()
    return PromptBatch.shared(ids * mask, mask)


def alone(prompt: PromptBatch, row: int) -> PromptBatch:
    """One prompt of the batch without its padding."""
    return PromptBatch.shared(prompt.receiver.input_ids[row : row + 1, -LENGTHS[row] :])


@matrix
def test_closed_gates_are_the_bare_receiver(receiver: str, sharer: str) -> None:
    model, prompt = build(receiver, sharer), prompts()
    bare = {"input_ids": prompt.receiver.input_ids, "attention_mask": prompt.receiver.mask}
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = model.receiver.model.generate(**bare, **settings)
    opened = model.generate(prompt, **settings)
    model.fuser.force_gates(is_open=False)
    assert torch.equal(model.generate(prompt, **settings), expected)
    # Otherwise the line above would hold for a fuser that does nothing.
    assert not torch.equal(opened, expected)


@matrix
def test_alone_is_as_in_a_padded_batch(receiver: str, sharer: str) -> None:
    model, prompt = build(receiver, sharer), prompts()
    cache, settings = model.fuse(prompt), {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    together = model.generate(prompt, **settings)
    for row, length in enumerate(LENGTHS):
        single = alone(prompt, row)
        for batched, lone in zip(cache.layers, model.fuse(single).layers, strict=True):
            # Another padding is another split of the same sums: entries of size 10 agree to 1e-4.
            torch.testing.assert_close(batched.keys[row : row + 1, :, 1 - length :], lone.keys, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                batched.values[row : row + 1, :, 1 - length :], lone.values, atol=1e-4, rtol=1e-4
            )
        assert torch.equal(together[row, -length - 6 :], model.generate(single, **settings)[0])


@matrix
def test_teacher_forcing_trains_the_fuser_only(receiver: str, sharer: str) -> None:
    model, prompt = build(receiver, sharer), prompts()
    response = torch.randint(3, 300, (len(LENGTHS), 7), generator=torch.Generator().manual_seed(6))
    output = model(prompt, response)
    assert output.logits.shape[:2] == (len(LENGTHS), 8)
    output.loss.backward()
    gradients = [parameter.grad for name, parameter in model.named_parameters() if not name.endswith("gate.logit")]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients if gradient is not None)
    assert all(parameter.grad is None for lm in (model.receiver, *model.sharers) for parameter in lm.model.parameters())


@matrix
def test_teacher_forcing_agrees_with_generation(receiver: str, sharer: str) -> None:
    model, prompt = build(receiver, sharer), prompts()
    ids = model.generate(prompt, max_new_tokens=4, do_sample=False, eos_token_id=None)
    response = ids[:, prompt.num_receiver_tokens :]
    with torch.no_grad():
        logits = model(prompt, response).logits
    assert torch.equal(logits[:, :-1].argmax(-1), response)

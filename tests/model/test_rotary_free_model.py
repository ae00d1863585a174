"""A rotary-free fuser in the fused model: what it adds does not depend on the positions of either model."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

MODES = ["prefill", "prompt", "decode"]
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


def build(mode: str, kind: str = "rotary_free") -> C2CModel:
    config = FuserConfig(kind=kind, hidden_dim=16, intermediate_dim=16, dropout=0.0, fusion_mode=mode)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = C2CModel(load_frozen(tiny_pair("qwen3", 0)), [load_frozen(tiny_pair("gemma3", 1))], config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def prompts(receiver_shift: int = 0, sharer_shift: int = 0) -> PromptBatch:
    """A left-padded batch of two prompts whose positions begin at other numbers."""
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    plain = PromptBatch.shared(ids * mask, mask)
    sharer = replace(plain.sharers[0], position_ids=plain.sharers[0].positions + sharer_shift)
    return PromptBatch(replace(plain.receiver, position_ids=plain.receiver.positions + receiver_shift), (sharer,))


def loss(model: C2CModel, prompt: PromptBatch) -> Any:
    response = torch.randint(3, 300, (2, 4), generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        return model(prompt, response).logits


@pytest.mark.parametrize("mode", MODES)
def test_answers_do_not_depend_on_positions(mode: str) -> None:
    model = build(mode)
    expected = loss(model, prompts())
    for shifts in ((40, 0), (0, 90), (40, 90)):
        torch.testing.assert_close(loss(model, prompts(*shifts)), expected, atol=2e-3, rtol=2e-3)
    plain = build(mode, "c2c")
    assert not torch.allclose(loss(plain, prompts(0, 90)), loss(plain, prompts()), atol=2e-2), "other kinds do depend"


@pytest.mark.parametrize("mode", MODES)
def test_generation_agrees_with_teacher_forcing(mode: str) -> None:
    model, prompt = build(mode), prompts(0, 30)
    ids = model.generate(prompt, **GREEDY)[:, prompt.num_receiver_tokens :]
    with torch.no_grad():
        logits = model(prompt, ids).logits
    assert torch.equal(logits[:, :-1].argmax(-1), ids)
    beams = model.generate(prompt, **GREEDY, num_beams=2)
    assert beams.shape[1] == prompt.num_receiver_tokens + 5


def test_one_token_at_a_time_is_the_batch() -> None:
    """A kept prompt continues with the same entries as a fresh one."""
    model, prompt = build("prefill"), prompts().select([1])
    first = PromptBatch.shared(prompt.receiver.input_ids[:, :8])
    fresh, continued = model.prefill(prompt), model.prefill(prompt, prefix=model.prefill(first))
    for a, b in zip(fresh.fused_kv, continued.fused_kv, strict=True):
        torch.testing.assert_close(a.keys, b.keys, atol=1e-4, rtol=1e-4)

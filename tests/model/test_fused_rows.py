"""Fused prompts taken apart into rows, and put together again."""

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.fused_rows import join_rows, row_of
from tests.model.test_chat_session import build

CONVERSATIONS = [[{"role": "user", "content": "City? " * n}] for n in (2, 9, 4)]
SETTINGS = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


def _assert_close(one: LayerStack, other: LayerStack) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.keys, b.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=1e-5)


def _plan(model: C2CModel):  # noqa: ANN202
    return lambda prompt: model.mode.plan(prompt, model.fuser.config)


@pytest.mark.parametrize("alignment", ["identity", "span", "longest"])
def test_a_row_is_the_prompt_alone(alignment: str) -> None:
    model = build(alignment)
    batch = model.prefill(model.encode(CONVERSATIONS))
    for number, conversation in enumerate(CONVERSATIONS):
        row, alone = row_of(batch, number, _plan(model)), model.prefill(model.encode([conversation]))
        assert torch.equal(row.prompt.receiver.input_ids, alone.prompt.receiver.input_ids)
        assert torch.equal(row.prompt.receiver.positions, alone.prompt.receiver.positions)
        for mine, theirs in zip(row.prompt.sharers, alone.prompt.sharers, strict=True):
            assert torch.equal(mine.index, theirs.index)
        _assert_close(row.unfused_kv, alone.unfused_kv)
        _assert_close(row.fused_kv, alone.fused_kv)


@pytest.mark.parametrize("alignment", ["identity", "span"])
def test_a_row_is_a_prefix_for_a_longer_conversation(alignment: str) -> None:
    model = build(alignment)
    batch = model.prefill(model.encode(CONVERSATIONS))
    for number, conversation in enumerate(CONVERSATIONS):
        longer = model.encode([[*conversation, {"role": "assistant", "content": "B"}, *CONVERSATIONS[0]]])
        whole = model.prefill(longer)
        continued = model.prefill(longer, prefix=row_of(batch, number, _plan(model)))
        _assert_close(continued.fused_kv, whole.fused_kv)


def test_joined_rows_give_the_answers_of_the_batch() -> None:
    model = build("span")
    prompt: PromptBatch = model.encode(CONVERSATIONS)
    rows = [model.prefill(model.encode([conversation])) for conversation in CONVERSATIONS]
    joined = join_rows(rows, prompt)
    cache = model.mode.generation_cache(model, joined)
    assert torch.equal(model.continue_from(joined, cache, **SETTINGS), model.generate(prompt, **SETTINGS))

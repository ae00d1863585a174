"""Fusion mode `replace`: the answers of mode `prefill`, without a receiver pass over the fused tokens."""

from dataclasses import replace

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch, SharerTokens
from c2c_lightning.errors import FuserConfigError, PairMismatchError
from c2c_lightning.fuser.config import FuserConfig, SharerKind
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.training.train_model import TrainModel
from tests.model.test_families import alone, prompts
from tests.model.test_host_reads import training_batch
from tests.model.test_prefix_match import counted, tokens
from tests.tiny import tiny_pair

GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
KINDS = {
    "ridge": {"kind": "ridge", "options": {"num_sources": 2, "trainable": True}},
    "rotary_free": {"kind": "rotary_free", "options": {"kind": "ridge", "num_sources": 1, "trainable": True}},
    "project": {"kind": "project", "hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def build(kind: str = "ridge", receiver: str = "qwen3", **choices: object) -> TrainModel:
    torch.manual_seed(3)
    config = FuserConfig(**{**KINDS[kind], "fusion_mode": "replace", **choices})
    return TrainModel(load_frozen(tiny_pair(receiver, 0)), [load_frozen(tiny_pair("llama", 1))], config).eval()  # type: ignore[return-value]


def with_mode(model: C2CModel, mode: str) -> None:
    model.fuser.config = replace(model.fuser.config, fusion_mode=mode)


@kinds
@pytest.mark.parametrize("receiver", ["qwen3", "gemma3"])
def test_answers_are_those_of_mode_prefill(kind: str, receiver: str) -> None:
    model, response = build(kind, receiver), torch.randint(3, 250, (3, 4))
    with torch.no_grad():
        replaced, answers = model(prompts(), response).logits, model.generate(prompts(), **GREEDY)
        with_mode(model, "prefill")
        torch.testing.assert_close(replaced, model(prompts(), response).logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(answers, model.generate(prompts(), **GREEDY))


@pytest.mark.parametrize("is_padded", [False, True])
def test_losses_and_gradients_of_several_spans_are_those_of_mode_prefill(is_padded: bool) -> None:
    model, batch = build().train(), training_batch(is_padded, has_own_tokens=True)
    losses, gradients = [], []
    for mode in ("replace", "prefill"):
        with_mode(model, mode)
        model.zero_grad()
        loss = model.batch_loss(batch)
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.fuser.parameters()])
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_the_receiver_processes_the_unfused_tokens_only() -> None:
    model, ids = build(), tokens(12, 0)
    source = torch.arange(12)[None].clone()
    source[:, :3] = source[:, 7] = -1
    prompt = PromptBatch(PromptBatch.shared(ids).receiver, (SharerTokens(ids, source_index=source),))
    with counted(model.receiver) as columns:
        model.prefill(prompt)
    assert columns == [3, 1], "the tokens before the first span, and between the two"
    with counted(model.receiver) as columns:
        model.prefill(PromptBatch.shared(ids))
    assert columns == []


def test_alone_is_as_in_a_padded_batch() -> None:
    model, prompt = build(), prompts()
    together = model.generate(prompt, **GREEDY)[:, prompt.num_receiver_tokens :]
    for row in range(len(prompt)):
        one = alone(prompt, row)
        assert torch.equal(model.generate(one, **GREEDY)[:, one.num_receiver_tokens :], together[row : row + 1])


def test_without_its_sharer_the_receiver_processes_all_tokens() -> None:
    model, prompt = build(), prompts()
    bare = {"input_ids": prompt.receiver.input_ids, "attention_mask": prompt.receiver.mask}
    answers = model.generate(prompt, active_sharers=[], **GREEDY)
    assert torch.equal(answers, model.receiver.model.generate(**bare, **GREEDY))


@pytest.mark.parametrize("num_fused", [19, 4, 0])
def test_a_prompt_continues_from_a_cached_one(num_fused: int) -> None:
    """Also where it fuses fewer tokens: those of the cached prompt have no entries of the receiver's own."""
    model, ids = build(), tokens(20, 0)
    cached, longer = PromptBatch.shared(ids[:, :12]), PromptBatch.shared(ids)
    source = longer.sharers[0].index.clone()
    source[:, num_fused:] = -1
    longer = PromptBatch(longer.receiver, (replace(longer.sharers[0], source_index=source),))
    resumed, whole = (cache_entries(model.fuse(longer, prefix=prefix)) for prefix in (model.prefill(cached), None))
    for one, other in zip(resumed, whole, strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.values, other.values, atol=1e-4, rtol=1e-4)


def test_a_growing_conversation_is_the_whole_one() -> None:
    model = build()
    chat = ChatSession(model)
    for text in ("one two", "three", "four five six"):
        expected = model.generate(chat.prompt(text), **GREEDY)
        reply = chat.send(text, **GREEDY)
        assert reply == chat._text(expected[:, -5:])


@pytest.mark.parametrize("kind", ["c2c", "low_rank", "ridge_start"])
def test_kinds_that_read_the_receiver_are_refused(kind: str) -> None:
    with pytest.raises(FuserConfigError, match=r"reads its entries\. Set `kind: ridge`"):
        FuserConfig(kind=kind, fusion_mode="replace")
    with pytest.raises(FuserConfigError, match="reads its entries"):
        FuserConfig(kind="rotary_free", fusion_mode="replace", options={"kind": kind})
    with pytest.raises(FuserConfigError, match="reads its entries"):
        FuserConfig(kind="ridge", fusion_mode="replace", sharer_kinds=[SharerKind(kind)])


def test_impossible_models_are_refused() -> None:
    layers = build(layer_map=[[0, None, 1, 1]])
    with pytest.raises(PairMismatchError, match=r"receiver layers \[1\] are not fused"):
        layers.prefill(prompts())
    sharers = [load_frozen(tiny_pair("llama", seed)) for seed in (1, 2)]
    two = C2CModel(load_frozen(tiny_pair("qwen3", 0)), sharers, FuserConfig(kind="ridge", fusion_mode="replace"))
    with pytest.raises(PairMismatchError, match="there are 2 sharers"):
        two.prefill(PromptBatch.shared(prompts().receiver.input_ids, num_sharers=2))

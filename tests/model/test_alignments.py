"""Two tokenizers, every token alignment: messages of unequal lengths, alone and in a padded batch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.collate import collate_prompts
from c2c_lightning.data.encode import Encoder, TokenAlignment, TokenizerSpec
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

CHATS = [
    [{"role": "user", "content": "What is the capital of Arlen?"}],
    [
        {"role": "user", "content": "Name a city."},
        {"role": "assistant", "content": "Velmora, by the river."},
        {"role": "user", "content": "Why does the river bend there?"},
    ],
    [{"role": "user", "content": "Hi"}],
]
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}

every_alignment = pytest.mark.parametrize("alignment", ["first", "longest", "span", "span_template", "span_cut"])
every_order = pytest.mark.parametrize("span_order", ["sectioned", "one_pass"])
every_pair = pytest.mark.parametrize(("receiver", "sharer"), [("qwen3", "llama"), ("gemma3", "qwen2")])


def build(receiver: str, sharer: str, span_order: str, alignment: TokenAlignment) -> tuple[C2CModel, Encoder]:
    first, second = load_frozen(tiny_pair(receiver, 0)), load_frozen(tiny_pair(sharer, 1, "header"))
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, span_order=span_order, token_alignment=alignment)  # type: ignore[arg-type]
    model = C2CModel(first, [second], config).eval()
    model.fuser.force_gates(is_open=True)
    encoder = Encoder(TokenizerSpec(first.tokenizer), [TokenizerSpec(second.tokenizer)], alignment)
    return model, encoder


def batch(encoder: Encoder, chats: list[list[dict[str, str]]]) -> PromptBatch:
    return collate_prompts(encoder.encode_many(chats), 0, [0])


@every_pair
@every_order
@every_alignment
def test_alone_is_as_in_a_padded_batch(receiver: str, sharer: str, span_order: str, alignment: TokenAlignment) -> None:
    model, encoder = build(receiver, sharer, span_order, alignment)
    together = model.generate(batch(encoder, CHATS), **GREEDY)
    for row, chat in enumerate(CHATS):
        single = model.generate(batch(encoder, [chat]), **GREEDY)[0]
        assert torch.equal(together[row, -len(single) :], single)


@pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
def test_template_tokens_are_one_span_in_every_mode(mode: str) -> None:
    """Alone as in a padded batch, teacher-forced as step by step."""
    model, encoder = build("qwen3", "llama", "sectioned", "span_template")
    model.fuser.config = replace(model.fuser.config, fusion_mode=mode)
    prompt = batch(encoder, CHATS)
    assert all(len(batch(encoder, [chat]).fusion_plan) == 1 for chat in CHATS)
    new = model.generate(prompt, **GREEDY)[:, prompt.num_receiver_tokens :]
    for row, chat in enumerate(CHATS):
        single = batch(encoder, [chat])
        assert torch.equal(model.generate(single, **GREEDY)[0, single.num_receiver_tokens :], new[row])
    with torch.no_grad():
        forced = model(prompt, new).logits[:, :-1].argmax(-1)
    assert torch.equal(forced, new)


def test_the_alignment_is_saved_and_loaded(tmp_path: Path) -> None:
    model, _ = build("qwen3", "llama", "sectioned", "span_template")
    loaded = C2CModel.from_pretrained(model.save_pretrained(tmp_path), model.receiver, model.sharers)
    index = loaded.encode(CHATS).sharers[0].index
    assert torch.equal(index, model.encode(CHATS).sharers[0].index)
    assert int((index >= 0).sum()) == int(loaded.encode(CHATS).receiver.mask.sum()) - len(CHATS)


@every_pair
@every_alignment
def test_closed_gates_are_the_bare_receiver(receiver: str, sharer: str, alignment: TokenAlignment) -> None:
    model, encoder = build(receiver, sharer, "sectioned", alignment)
    prompt = batch(encoder, CHATS)
    tokens, opened = prompt.receiver, model.fuse(prompt)
    model.fuser.force_gates(is_open=False)
    # The released alignments leave padding between messages, and count it in the positions.
    settings = {"attention_mask": tokens.mask, "position_ids": tokens.positions, **GREEDY}
    assert torch.equal(model.generate(prompt, **GREEDY), model.receiver.model.generate(tokens.input_ids, **settings))
    # Otherwise the line above would hold for a fuser that does nothing.
    assert not torch.equal(opened.layers[-1].values, model.fuse(prompt).layers[-1].values)

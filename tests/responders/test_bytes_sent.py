"""The size of what the models send each other, against a count over the fused tokens."""

from typing import Any

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.fuser.channel_config import ChannelConfig
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.cache_exchange import prompt_bytes
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.responders.c2c_responder import C2CResponder, SomeSharers
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import ReceiverOnly, ReceiverWithDocument, SingleModel
from c2c_lightning.responders.text_to_text import TextToText
from tests.evaluation.conftest import fused_pair
from tests.tiny import tiny_pair

GREEDY: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}


@pytest.fixture(scope="module")
def c2c() -> C2CModel:
    return fused_pair()


@pytest.mark.parametrize(("bits", "bytes_of_head"), [(32, 4 * 16), (16, 2 * 16), (8, 16 + 2), (4, 16 / 2 + 2)])
def test_only_mapped_layers_at_distinct_read_tokens_count(bits: int, bytes_of_head: float) -> None:
    # A sharer of three layers, each of 4 heads of 16 channels; the map names two of them.
    config = FuserConfig(hidden_dim=8, intermediate_dim=8, layer_map=[[2, None, 2, 0]], channel=ChannelConfig(bits))
    sharer = load_frozen(tiny_pair("llama", layers=3, heads=4, kv_heads=4, head_dim=16))
    model = C2CModel(load_frozen(tiny_pair("qwen3", layers=4)), [sharer], config)
    index = torch.tensor([[-1, 0, 0, 3, -1], [-1, -1, -1, -1, -1]])
    ids = torch.zeros(2, 5, dtype=torch.long)
    prompt = PromptBatch(TokenBatch(ids), (SharerTokens(ids, source_index=index),))
    assert prompt_bytes(model, prompt, 0).tolist() == [2 * 2 * 4 * 2 * bytes_of_head, 0]


def test_answers_of_c2c_hold_the_bytes_of_their_own_prompt(c2c: C2CModel, questions: Any) -> None:
    answers = C2CResponder(c2c).respond(questions, **GREEDY)
    geometry = c2c.sharers[0].geometry.layers
    mapped = {number for number in c2c.fuser.sharers[0].layer_map if number is not None}
    per_token = sum(geometry[n].kv_heads * (geometry[n].key_dim + geometry[n].value_dim) * 4 for n in mapped)
    for question, answer in zip(questions, answers, strict=True):
        index = c2c.encode([question]).sharers[0].index[0]
        assert answer.bytes_sent == len(set(index[index >= 0].tolist())) * per_token
    assert SomeSharers(c2c, (), "none").respond(questions, **GREEDY)[0].bytes_sent == 0


def test_text_to_text_sends_the_text(c2c: C2CModel, questions: Any) -> None:
    talk = TextToText(SingleModel(c2c.receiver), SingleModel(c2c.sharers[0]), "Say: {question}", 4)
    for answer in talk.respond(questions, **GREEDY):
        assert answer.bytes_sent == len((answer.message or "").encode())


def test_the_receiver_with_the_document_reads_what_the_sharer_reads(c2c: C2CModel, questions: Any) -> None:
    private = [[{"role": "user", "content": f"A note. {q[-1]['content']}"}] for q in questions]
    prompts = [QuestionPrompt(q, sharer=theirs) for q, theirs in zip(questions, private, strict=True)]
    document, bare = ReceiverWithDocument(c2c.receiver), ReceiverOnly(c2c.receiver)
    assert [a.text for a in document.respond(prompts, **GREEDY)] == [a.text for a in bare.respond(private, **GREEDY)]
    assert document.respond(questions, **GREEDY)[0].text == bare.respond(questions, **GREEDY)[0].text

"""Conversations with template arguments, from the model's own methods."""

import pytest
import torch

from c2c_lightning.errors import PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
TOOLS = [{"name": "add"}]
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model() -> C2CModel:
    receiver, sharer = tiny_pair("qwen3", 0), tiny_pair("llama", 1)
    receiver[1].chat_template = TEMPLATE
    return C2CModel(load_frozen(receiver), [load_frozen(sharer)], FuserConfig(hidden_dim=16, intermediate_dim=16))


def test_template_arguments_reach_the_prompt(model: C2CModel) -> None:
    expected = model.receiver.tokenizer.apply_chat_template(
        HI, tools=TOOLS, add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    assert torch.equal(model.encode([HI], None, [{"tools": TOOLS}]).receiver.input_ids, expected)
    assert torch.equal(ChatSession(model, None, {"tools": TOOLS}).prompt("Hi").receiver.input_ids, expected)
    together = model.encode([HI, HI], chat_template_kwargs=[{"tools": TOOLS}, None])
    assert together.receiver.mask.sum(1).tolist() == [expected.shape[1], model.encode([HI]).num_receiver_tokens]


def test_one_argument_mapping_for_each_conversation(model: C2CModel) -> None:
    with pytest.raises(PromptError, match="2 conversations, but 1 chat_template_kwargs"):
        model.chat([HI, HI], chat_template_kwargs=[{"tools": TOOLS}])


def test_no_conversations_and_no_tokens_are_named_errors(model: C2CModel) -> None:
    with pytest.raises(PromptError, match="no conversations"):
        model.chat([])

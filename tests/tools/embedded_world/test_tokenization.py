"""The tokenizers of the pair, as the script makes them and as they are shipped."""

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from c2c_lightning import embedded
from tools.embedded_world.tokenization import build_receiver_tokenizer, build_sharer_tokenizer
from tools.embedded_world.world import VALUES, make_world

CHAT = [
    {"role": "system", "content": "The food of Zed is  rice.\n"},
    {"role": "user", "content": "In one sentence: Ünicode & <tags>?"},
    {"role": "assistant", "content": " The capital of Bo is Arden. "},
    {"role": "user", "content": "What?"},
]


@pytest.fixture(scope="module")
def tokenizers() -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    return AutoTokenizer.from_pretrained(embedded.path("receiver")), AutoTokenizer.from_pretrained(
        embedded.path("sharer")
    )


Pair = tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]


def test_script_makes_the_shipped_tokenizers(tokenizers: Pair) -> None:
    for made, shipped in zip((build_receiver_tokenizer(), build_sharer_tokenizer()), tokenizers, strict=True):
        assert made.get_vocab() == shipped.get_vocab()
        assert made.chat_template == shipped.chat_template


def test_sizes(tokenizers: Pair) -> None:
    assert [len(tokenizer) for tokenizer in tokenizers] == [640, 900]


def test_names_are_split_differently(tokenizers: Pair) -> None:
    receiver, sharer = tokenizers
    names = sorted(make_world().entities)
    unequal = [receiver.tokenize(f" {name}") != sharer.tokenize(f" {name}") for name in names]
    assert sum(unequal) / len(names) > 0.9


def test_values_are_single_tokens(tokenizers: Pair) -> None:
    for tokenizer in tokenizers:
        for word in (word for vocabulary in VALUES.values() for word in vocabulary):
            assert len(tokenizer.tokenize(word)) == len(tokenizer.tokenize(f" {word}")) == 1


def test_templates_render_contents_verbatim(tokenizers: Pair) -> None:
    for tokenizer in tokenizers:
        text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        for message in CHAT:
            assert message["content"] in text
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_reply_goes_on_from_the_generation_prompt(tokenizers: Pair) -> None:
    reply = {"role": "assistant", "content": "Arden."}
    for tokenizer in tokenizers:
        prompt = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template([*CHAT, reply], return_dict=False)
        expected = tokenizer("Arden.", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        assert whole == prompt + expected

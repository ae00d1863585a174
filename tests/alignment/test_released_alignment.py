"""`first` and `longest` against what the reference implementation made of two real tokenizers.

The tokenizers are looked for in the folder named by C2C_TEST_MODELS.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from c2c_lightning.alignment import retokenize
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer
from c2c_lightning.alignment.released_chat import align_chat
from c2c_lightning.data.encode import Encoder, TokenizerSpec

RECORDED = json.loads((Path(__file__).parent.parent / "assets" / "alignment.json").read_text(encoding="utf-8"))
PAIRS = {f"{pair['receiver']} <- {pair['sharer']}": pair for pair in RECORDED["pairs"]}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("C2C_TEST_MODELS" not in os.environ, reason="C2C_TEST_MODELS not set"),
]


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    folder = Path(os.environ["C2C_TEST_MODELS"]) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in C2C_TEST_MODELS")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> dict[str, Any]:
    return PAIRS[request.param]


@pytest.mark.parametrize("strategy", ["first", "longest"])
def test_tokens(pair: dict[str, Any], strategy: str) -> None:
    receiver, sharer = tokenizer_of(pair["receiver"]), tokenizer_of(pair["sharer"])
    for row in pair["tokens"]:
        assert retokenize(receiver, sharer, row["receiver_ids"], strategy) == row[strategy]


@pytest.mark.parametrize("form", ["training", "generation", "prefilled"])
@pytest.mark.parametrize("chat", RECORDED["chats"])
def test_chats(pair: dict[str, Any], chat: str, form: str) -> None:
    receiver, sharer = ChatTokenizer(tokenizer_of(pair["receiver"])), ChatTokenizer(tokenizer_of(pair["sharer"]))
    expected = pair["chats"][chat][form]
    for strategy in ("first", "longest"):
        aligned = align_chat(receiver, sharer, RECORDED["chats"][chat], strategy, form)

        other_rule = expected.get("sharer_ids_longest", expected["sharer_ids"])
        assert aligned.sharer_ids == (expected["sharer_ids"] if strategy == "first" else other_rule)
        assert aligned.receiver_ids == expected["receiver_ids"]
        assert aligned.message_mask == expected["message_mask"]
        assert aligned.receiver_padding == expected["receiver_padding"]
        assert aligned.sharer_padding == expected["sharer_padding"]
        assert aligned.sections == [tuple(section) for section in expected["sections"]]


@pytest.mark.parametrize("chat", RECORDED["chats"])
def test_encoder_keeps_the_columns_but_no_padding_at_the_end(pair: dict[str, Any], chat: str) -> None:
    receiver, sharer = tokenizer_of(pair["receiver"]), tokenizer_of(pair["sharer"])
    encoder = Encoder(TokenizerSpec(receiver), [TokenizerSpec(sharer)], "longest")
    expected = pair["chats"][chat]["generation"]

    prompt = encoder.encode(RECORDED["chats"][chat][:-1])

    length = len(expected["receiver_ids"])
    while expected["receiver_padding"][length - 1]:
        length -= 1
    assert prompt.receiver_ids == expected["receiver_ids"][:length]
    real = [1 - padding for padding in expected["receiver_padding"][:length]]
    assert (prompt.attention_mask or [1] * length) == real
    fused = [column if message else -1 for column, message in enumerate(expected["message_mask"][:length])]
    assert prompt.sharers[0].source_index == fused
    ids = expected.get("sharer_ids_longest", expected["sharer_ids"])
    assert prompt.sharers[0].input_ids == ids[: len(prompt.sharers[0].input_ids)]
    assert all(expected["sharer_padding"][len(prompt.sharers[0].input_ids) :])


def test_real_tokenizers_that_are_equal_are_found_so() -> None:
    for name in RECORDED["tokenizers"]:
        again = AutoTokenizer.from_pretrained(Path(os.environ["C2C_TEST_MODELS"]) / name)
        for other in RECORDED["tokenizers"]:
            encoder = Encoder(TokenizerSpec(again), [TokenizerSpec(tokenizer_of(other))])
            assert encoder.strategies == ("identity" if other == name else "longest",)
        assert (
            Encoder(TokenizerSpec(tokenizer_of(name)), []).fingerprint == Encoder(TokenizerSpec(again), []).fingerprint
        )

"""`span_cut`: the sharer's tokens end where the receiver's do, and nothing else about them changes."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.common_borders import CutTokenizer
from c2c_lightning.data.encode import Encoder, TokenizerSpec
from tests.alignment.conversations import conversations
from tests.alignment.styles import STYLES, tokenizer_of

Messages = list[dict[str, str]]


def tokenized(receiver: str, sharer: str, messages: Messages) -> tuple[TokenizedChat, TokenizedChat, TokenizedChat]:
    """The sharer's text in its own tokens, in cut tokens, and in the receiver's tokens."""
    mine, theirs = (ChatTokenizer(tokenizer_of(name, size)) for name, size in ((receiver, 300), (sharer, 600)))
    own = theirs.encode([messages], True)[0]
    return own, CutTokenizer(mine, theirs.tokenizer).encode([messages], True)[0], mine.tokenize([own])[0]


def inner_borders(chat: TokenizedChat, borders: set[int]) -> dict[int, set[int]]:
    """For each token the borders inside of it, where there are any."""
    inner = {place: borders & set(range(start + 1, end)) for place, (start, end) in enumerate(chat.offsets)}
    return {place: inside for place, inside in inner.items() if inside}


COMPOSED = [{"role": "user", "content": "cafe\u0301 nai\u0308ve \u1112\u1161\u11ab"}]
"""Letters with their marks apart, which some tokenizers compose: between them no token can be cut."""
SPLIT = [{"role": "system", "content": "\u0148\ub140"}, {"role": "user", "content": ""}]
"""Byte-level tokens that end within a character."""


@settings(deadline=None, max_examples=200)
@example(receiver="llama3", sharer="plain", messages=COMPOSED)
@example(receiver="chatml", sharer="chatml", messages=COMPOSED)
@example(receiver="chatml", sharer="chatml", messages=SPLIT)
@given(receiver=st.sampled_from(sorted(STYLES)), sharer=st.sampled_from(sorted(STYLES)), messages=conversations())
def test_tokens_are_replaced_by_tokens_of_the_same_characters(receiver: str, sharer: str, messages: Messages) -> None:
    own, cut, theirs = tokenized(receiver, sharer, messages)
    assert (cut.text, cut.spans) == (own.text, own.spans)
    assert {end for _, end in own.offsets} <= {end for _, end in cut.offsets}
    assert [start for start, _ in cut.offsets] == sorted(start for start, _ in cut.offsets)
    tokenizer = tokenizer_of(sharer, 600)
    assert tokenizer.decode(cut.ids) == tokenizer.decode(own.ids)
    # What stays whole across a border of the receiver is a token of the sharer, as it was.
    kept = set(zip(own.ids, own.offsets, strict=True))
    for place in inner_borders(cut, {end for _, end in theirs.offsets}):
        assert (cut.ids[place], cut.offsets[place]) in kept


BYTE_LEVEL = [name for name in STYLES if "\u0120" in "".join(tokenizer_of(name).get_vocab())]


@pytest.mark.parametrize("receiver", STYLES)
@pytest.mark.parametrize("sharer", BYTE_LEVEL)
def test_no_border_of_the_receiver_is_inside_a_token_but_a_special_one(receiver: str, sharer: str) -> None:
    messages = [{"role": "user", "content": "What is the capital of the country? The answer, another one\n\nthere."}]
    own, cut, theirs = tokenized(receiver, sharer, messages)
    special = set(tokenizer_of(sharer, 600).added_tokens_decoder)
    borders = {end for _, end in theirs.offsets}
    assert {cut.ids[place] for place in inner_borders(cut, borders)} <= special
    assert special & {*own.ids} == special & {*cut.ids}


def test_some_tokens_are_cut_and_equal_vocabularies_change_nothing() -> None:
    messages = [{"role": "user", "content": "What is the capital of the country? The answer, another one there."}]
    own, cut, _ = tokenized("chatml", "chatml", messages)
    assert len(cut.ids) > len(own.ids)
    same = ChatTokenizer(tokenizer_of("chatml"))
    assert CutTokenizer(same, same.tokenizer).encode([messages], True) == same.encode([messages], True)


def test_the_encoder_fuses_each_piece_of_the_receiver_with_its_own_token() -> None:
    receiver, sharer = (TokenizerSpec(tokenizer_of(name, size)) for name, size in (("chatml", 300), ("phi", 600)))
    question = [{"role": "user", "content": "What is the capital of the country?"}]

    def sources(alignment: str) -> list[int]:
        prompt = Encoder(receiver, [sharer], alignment).encode(question)  # type: ignore[arg-type]
        return [source for source in prompt.sharers[0].source_index if source >= 0]

    assert len(set(sources("span"))) < len(sources("span"))
    assert len(set(sources("span_cut"))) == len(sources("span_cut")) == len(sources("span"))

"""The text of an answer, token by token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_lightning.serving.text_stream import TextStream
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
texts = st.text(alphabet="ab ,.é漢🙂\n", max_size=30)


def streamed(ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(TOKENIZER, stop)
    pieces = []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.is_stopped:
            break
    return [*pieces, stream.finish()], stream


@given(texts)
def test_pieces_are_whole_characters_and_join_to_the_decoded_text(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    pieces, stream = streamed(ids)
    assert "".join(pieces) == stream.text == TOKENIZER.decode(ids) == text
    assert not any("�" in piece for piece in pieces)


@given(texts, st.text(alphabet="ab ,é漢", min_size=1, max_size=4))
def test_a_stop_string_cuts_exactly_and_none_of_it_is_sent(text: str, stop: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    pieces, stream = streamed(ids, (stop,))
    assert "".join(pieces) == stream.text == text.partition(stop)[0]
    assert stream.is_stopped == (stop in text)


@given(texts, st.lists(st.text(alphabet="ab ,é漢", min_size=1, max_size=4), min_size=2, max_size=3))
def test_of_several_stop_strings_the_first_that_is_complete_cuts(text: str, stop: list[str]) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    pieces, stream = streamed(ids, tuple(stop))
    assert "".join(pieces) == stream.text
    assert not any(s in stream.text for s in stop)
    rest = text.removeprefix(stream.text)
    assert any(rest.startswith(s) for s in stop) if stream.is_stopped else rest == ""


def test_an_incomplete_character_is_shown_at_the_end_only() -> None:
    ids = TOKENIZER("é", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2
    pieces, _ = streamed(ids[:1])
    assert pieces == ["", "�"]


@pytest.mark.parametrize("special", ["<|im_end|>", "<|im_start|>"])
def test_special_tokens_are_left_out(special: str) -> None:
    ids = [*TOKENIZER("one", add_special_tokens=False)["input_ids"], TOKENIZER.convert_tokens_to_ids(special)]
    assert "".join(streamed(ids)[0]) == "one"

"""Span alignment against an oracle that compares every pair of tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer
from c2c_lightning.alignment.common_context import shared_runs, shared_texts
from c2c_lightning.alignment.span_alignment import SharedRun, align_spans, close_gaps
from tests.alignment.conversations import conversations
from tests.alignment.styles import STYLES, rendered, tokenizer_of

# Message, and character of its content.
Place = tuple[int, int]


def characters(name: str, messages: list[dict[str, str]]) -> tuple[list[set[Place]], list[int], set[Place]]:
    """The `(message, character)` pairs of each token, and the token ids."""
    text, origin = rendered(name, messages, True)
    encoded = tokenizer_of(name)(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens, reached = [], 0
    for start, end in encoded["offset_mapping"]:
        start, reached = min(start, reached), max(end, reached)  # white space that offsets leave out is the token's
        tokens.append({place for place in origin[start:end] if place is not None})
    return tokens, encoded["input_ids"], {place for place in origin if place is not None}


def check_alignment(receiver: str, sharer: str, messages: list[dict[str, str]]) -> None:
    mine, theirs = (ChatTokenizer(tokenizer_of(name)).encode([messages], True)[0] for name in (receiver, sharer))
    index = align_spans(mine.offsets, theirs.offsets, shared_runs(mine, theirs, shared_texts(messages, messages)))

    my_tokens, my_ids, _ = characters(receiver, messages)
    their_tokens, their_ids, shown = characters(sharer, messages)
    assert list(mine.ids) == my_ids
    assert list(theirs.ids) == their_ids
    for token, source in zip(my_tokens, index, strict=True):
        overlapping = [place for place, other in enumerate(their_tokens) if token & other]
        # A token is mapped if it has characters of a message that the sharer renders too.
        assert source == max(overlapping, default=-1)
        assert (source >= 0) == bool(token & shown)
    mapped = [source for source in index if source >= 0]
    assert mapped == sorted(mapped)


@settings(deadline=None, max_examples=250)
@given(receiver=st.sampled_from(sorted(STYLES)), sharer=st.sampled_from(sorted(STYLES)), messages=conversations())
def test_every_token_takes_the_last_one_that_overlaps_it(
    receiver: str, sharer: str, messages: list[dict[str, str]]
) -> None:
    check_alignment(receiver, sharer, messages)


@pytest.mark.parametrize("receiver", STYLES)
@pytest.mark.parametrize("sharer", STYLES)
def test_every_pair_of_styles(receiver: str, sharer: str) -> None:
    check_alignment(
        receiver,
        sharer,
        [
            {"role": "system", "content": " Be terse. "},
            {"role": "user", "content": "Wo liegt Ärlen? 你好 😀\n"},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "user"},
            {"role": "assistant", "content": "user"},
            {"role": "user", "content": "user"},
        ],
    )


def test_the_readme_example() -> None:
    #            ab c d  e          a bc  de
    receiver = [(0, 2), (2, 3), (3, 4), (4, 5)]
    sharer = [(0, 1), (1, 3), (3, 5)]
    assert align_spans(receiver, sharer, [SharedRun(0, 0, 5)]) == [1, 1, 2, 2]


def test_only_shared_text_is_mapped() -> None:
    receiver = [(0, 2), (2, 4), (4, 6)]
    sharer = [(0, 3), (3, 9), (9, 12)]
    assert align_spans(receiver, sharer, [SharedRun(2, 4, 2)]) == [-1, 1, -1]
    assert align_spans(receiver, sharer, []) == [-1, -1, -1]


def test_pieces_of_a_character_read_the_token_that_completes_it() -> None:
    # Three bytes of one character on both sides; the last receiver token also holds the next character.
    receiver = [(0, 1), (0, 1), (0, 2)]
    sharer = [(0, 1), (0, 1), (0, 1), (1, 2)]
    assert align_spans(receiver, sharer, [SharedRun(0, 0, 2)]) == [2, 2, 3]


def test_a_token_across_the_border_counts_for_what_is_inside() -> None:
    receiver = [(0, 3), (3, 5)]  # the message is characters 2 to 4
    sharer = [(0, 1), (1, 2), (2, 6)]  # and 1 to 3
    assert align_spans(receiver, sharer, [SharedRun(2, 1, 2)]) == [1, 2]


def test_gaps_belong_to_the_token_after_them() -> None:
    assert close_gaps([(0, 1), (3, 5), (5, 5), (8, 8), (8, 9)]) == [(0, 1), (1, 5), (5, 5), (5, 8), (8, 9)]
    assert close_gaps([(0, 4), (0, 0), (3, 4), (4, 5)]) == [(0, 4), (4, 4), (3, 4), (4, 5)]

"""Columns of the released alignment, for conversations on which the released code fails an assertion too."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_lightning.alignment import retokenize
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer
from c2c_lightning.alignment.released_chat import align_chat
from c2c_lightning.errors import AlignmentError
from tests.alignment.conversations import conversations
from tests.alignment.styles import STYLES, rendered, tokenizer_of

names = st.sampled_from(sorted(STYLES))


def own_tokens(name: str, messages: list[dict[str, str]]) -> tuple[list[int], list[set[int]]]:
    """A model's tokens, and for each whether it overlaps a message that is shown."""
    text, origin = rendered(name, messages, False)
    encoded = tokenizer_of(name)(text, add_special_tokens=False, return_offsets_mapping=True)
    touched, reached = [], 0
    for start, end in encoded["offset_mapping"]:
        start, reached = min(start, reached), max(end, reached)
        touched.append({place[0] for place in origin[start:end] if place is not None})
    return encoded["input_ids"], touched


@settings(deadline=None, max_examples=200)
@given(receiver=names, sharer=names, messages=conversations(), strategy=st.sampled_from(["first", "longest"]))
def test_columns(receiver: str, sharer: str, messages: list[dict[str, str]], strategy: str) -> None:
    aligned = align_chat(
        ChatTokenizer(tokenizer_of(receiver)), ChatTokenizer(tokenizer_of(sharer)), messages, strategy, "training"
    )

    ids, touched = own_tokens(receiver, messages)
    real = [column for column, padding in enumerate(aligned.receiver_padding) if not padding]
    # Nothing of the receiver's is lost or moved, and each column is padding on one side at most.
    assert [aligned.receiver_ids[column] for column in real] == ids
    assert not any(
        mine and theirs for mine, theirs in zip(aligned.receiver_padding, aligned.sharer_padding, strict=True)
    )
    assert {len(ids) for ids in (aligned.receiver_ids, aligned.sharer_ids, aligned.message_mask)} == {
        len(real) + sum(aligned.receiver_padding)
    }
    # Message columns are the receiver's message tokens, re-tokenised.
    for kind, start, end in aligned.sections:
        assert set(aligned.message_mask[start:end]) == {kind == "message"}
        if kind == "message":
            mine = aligned.receiver_ids[start:end]
            expected = retokenize(tokenizer_of(receiver), tokenizer_of(sharer), mine, strategy)
            assert aligned.sharer_ids[start:end] == expected
            assert not any(aligned.receiver_padding[start:end] + aligned.sharer_padding[start:end])
    in_messages = [aligned.message_mask[column] for column in real]
    assert not any(inside and not messages for inside, messages in zip(in_messages, touched, strict=True))
    # Every message that both show is there; a token that two messages share may take the second one's place.
    shown = set().union(*touched) & set().union(*own_tokens(sharer, messages)[1])
    inside = set().union(*(messages for inside, messages in zip(in_messages, touched, strict=True) if inside))
    assert shown <= inside


@pytest.mark.parametrize("strategy", ["first", "longest"])
def test_a_template_that_trims(strategy: str) -> None:
    messages = [{"role": "user", "content": "  What is it?\n"}, {"role": "assistant", "content": " It is. "}]
    aligned = align_chat(
        ChatTokenizer(tokenizer_of("chatml")), ChatTokenizer(tokenizer_of("gemma")), messages, strategy, "generation"
    )
    kinds = [kind for kind, _, _ in aligned.sections]
    assert kinds == ["template", "message", "template"]
    _, start, end = aligned.sections[1]
    assert tokenizer_of("chatml").decode(aligned.receiver_ids[start:end]) == "  What is it?\n"


def test_prefilled_ends_with_the_bare_text() -> None:
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": " It is"}]
    aligned = align_chat(
        ChatTokenizer(tokenizer_of("chatml")), ChatTokenizer(tokenizer_of("phi")), messages, "first", "prefilled"
    )
    assert tokenizer_of("chatml").decode(aligned.receiver_ids).endswith("assistant\n It is")
    assert aligned.sections[-1][0] == "message"


def test_a_lone_message_has_no_response_to_leave_out() -> None:
    tokenizer = ChatTokenizer(tokenizer_of("chatml"))
    with pytest.raises(AlignmentError, match="1 messages"):
        align_chat(tokenizer, tokenizer, [{"role": "user", "content": "a"}], "first", "generation")

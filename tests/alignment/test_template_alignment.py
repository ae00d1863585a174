"""`span_template` against an oracle that counts the messages before each token."""

from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer
from c2c_lightning.alignment.common_context import shared_texts
from c2c_lightning.alignment.template_alignment import align_messages, align_messages_and_template
from tests.alignment.conversations import contents, conversations
from tests.alignment.styles import STYLES, rendered, tokenizer_of

Conversation = list[dict[str, str]]
names = st.sampled_from(sorted(STYLES))


def aligned(
    receiver: str, sharer: str, messages: Conversation, sharer_messages: Conversation
) -> tuple[list[int], list[int]]:
    """With template tokens, and without."""
    mine = ChatTokenizer(tokenizer_of(receiver)).encode([messages], True)[0]
    theirs = ChatTokenizer(tokenizer_of(sharer)).encode([sharer_messages], True)[0]
    shared = shared_texts(messages, sharer_messages)
    return align_messages_and_template(mine, theirs, shared), align_messages(mine, theirs, shared)


def tokens_of(name: str, messages: Conversation) -> list[tuple[set[int], int]]:
    """For each token the messages that it has characters of, and the first character after it in the text."""
    text, origin = rendered(name, messages, True)
    encoded = tokenizer_of(name)(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens, reached = [], 0
    for start, end in encoded["offset_mapping"]:
        start, reached = min(start, reached), max(end, reached)
        tokens.append(({place[0] for place in origin[start:end] if place is not None}, end))
    return tokens


def shown(name: str, messages: Conversation) -> dict[int, int]:
    """Messages that a template shows, and where each begins."""
    begins: dict[int, int] = {}
    for place, character in enumerate(rendered(name, messages, True)[1]):
        if character is not None:
            begins.setdefault(character[0], place)
    return begins


def template_sections(name: str, messages: Conversation, common: set[int]) -> dict[int, list[int]]:
    """Template tokens by the number of common messages that begin before they end."""
    begins = shown(name, messages)
    found: dict[int, list[int]] = {}
    for place, (inside, end) in enumerate(tokens_of(name, messages)):
        if not inside:
            found.setdefault(sum(begins[message] < end for message in common), []).append(place)
    return found


@settings(deadline=None, max_examples=150)
@given(receiver=names, sharer=names, messages=conversations())
def test_template_tokens_are_fused_with_template_tokens(receiver: str, sharer: str, messages: Conversation) -> None:
    index, in_messages = aligned(receiver, sharer, messages, messages)
    common = shown(receiver, messages).keys() & shown(sharer, messages).keys()
    theirs = template_sections(sharer, messages, common)

    expected = list(in_messages)
    for number, tokens in template_sections(receiver, messages, common).items():
        for place, token in enumerate(tokens[::-1]):
            sources = theirs.get(number, [])[::-1]
            expected[token] = sources[min(place, len(sources) - 1)] if sources else -1
    assert index == expected

    # Contents as under `span`, all template tokens mapped where the sharer has any, positions never decrease.
    mine = tokens_of(receiver, messages)
    assert all(new == old for new, old, (inside, _) in zip(index, in_messages, mine, strict=True) if inside)
    assert all(source >= 0 for source, (inside, _) in zip(index, mine, strict=True) if not inside) or any(
        number not in theirs for number in template_sections(receiver, messages, common)
    )
    mapped = [source for source in index if source >= 0]
    assert mapped == sorted(mapped)


@settings(deadline=None, max_examples=100)
@given(
    receiver=names,
    sharer=names,
    messages=conversations().filter(lambda messages: messages[0]["role"] == "user"),
    private=st.lists(contents, min_size=2, max_size=2),
    document=contents,
)
def test_template_tokens_are_never_fused_with_private_context(
    receiver: str, sharer: str, messages: Conversation, private: list[str], document: str
) -> None:
    first = {"role": "user", "content": document + messages[0]["content"]}
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), private, strict=True)]
    sharer_messages = [*turns, first, *messages[1:]]
    index, in_messages = aligned(receiver, sharer, messages, sharer_messages)
    theirs = tokens_of(sharer, sharer_messages)
    # No token before the end of the private turns.
    last_private = max((place for place, (inside, _) in enumerate(theirs) if inside & {0, 1}), default=-1)
    for source, before in zip(index, in_messages, strict=True):
        if source != before:
            assert before == -1
            assert not theirs[source][0]
            assert source > last_private
    mapped = [source for source in index if source >= 0]
    assert mapped == sorted(mapped)


def test_an_example() -> None:
    """Sections are aligned from their ends: header of a message, between two messages, opening of the answer."""
    messages = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "It."},
        {"role": "user", "content": "Why?"},
    ]
    index, in_messages = aligned("phi", "mistral", messages, messages)
    mine, theirs = (ChatTokenizer(tokenizer_of(name)).encode([messages], True)[0] for name in ("phi", "mistral"))
    pairs = [
        (tokenizer_of("phi").decode([mine.ids[place]]), tokenizer_of("mistral").decode([theirs.ids[source]]))
        for place, source in enumerate(index)
        if in_messages[place] < 0
    ]
    assert pairs == [
        *(("<|user|>", "[INST]"), ("\n", " ")),
        *(("<|end|>", " "), ("\n", " "), ("<|assistant|>", "[/INST]"), ("\n", " ")),
        *(("<|end|>", "</s>"), ("\n", "</s>"), ("<|user|>", "[INST]"), ("\n", " ")),
        *(("<|end|>", " "), ("\n", " "), ("<|assistant|>", " "), ("\n", "[/INST]")),
    ]


def test_nothing_shared_maps_nothing() -> None:
    messages, sharer_messages = ([{"role": "user", "content": text}] for text in ("Name a river!", "Name a city."))
    index, _ = aligned("chatml", "gemma", messages, sharer_messages)
    assert set(index) == {-1}

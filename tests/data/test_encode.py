import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from c2c_lightning.data.encode import EncodedPrompt, Encoder, TokenAlignment, TokenizerSpec
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import AlignmentError, DataError, PromptError
from tests.alignment.conversations import conversations
from tests.alignment.styles import STYLES, rendered, tokenizer_of
from tests.data.encoders import EXAMPLE, QUESTION, Conversation, encoder, text_of
from tests.tiny import tiny_tokenizer


def mapped(prompt: EncodedPrompt, sharer: int = 0) -> tuple[list[int], list[int]]:
    """Fused receiver ids, and the sharer ids that they are fused with."""
    index = prompt.sharers[sharer].source_index
    fused = [place for place, source in enumerate(index) if source >= 0]
    return [prompt.receiver_ids[p] for p in fused], [prompt.sharers[sharer].input_ids[index[p]] for p in fused]


def test_equal_tokenizers_share_every_token_but_the_last() -> None:
    for messages in (QUESTION, [{"role": "user", "content": "Hi"}], [*EXAMPLE, *QUESTION]):
        prompt = encoder("chatml", "chatml").encode(messages)
        text = rendered("chatml", messages, True)[0]
        assert prompt.receiver_ids == tokenizer_of("chatml")(text)["input_ids"]
        length = len(prompt.receiver_ids)
        assert prompt.sharers[0].input_ids == prompt.receiver_ids
        assert prompt.sharers[0].source_index == [*range(length - 1), -1]
        assert prompt.position_ids is None
        assert prompt.attention_mask is None


def test_auto_is_identity_for_equal_tokenizers_and_longest_for_others() -> None:
    mixed = encoder("chatml", "chatml", "gemma")
    assert mixed.strategies == ("identity", "longest")
    copied = copy.deepcopy(tokenizer_of("chatml"))
    copied.chat_template = STYLES["phi"].jinja
    specs = TokenizerSpec(tokenizer_of("chatml")), [TokenizerSpec(copied)]
    assert Encoder(*specs).strategies == ("identity",)


@pytest.mark.parametrize("alignment", ["first", "longest"])
def test_retokenizing_between_equal_tokenizers_warns(
    alignment: TokenAlignment, caplog: pytest.LogCaptureFixture
) -> None:
    encoder("chatml", "chatml", alignment=alignment)
    assert "same tokenizer" in caplog.text


def test_no_warning_without_cause(caplog: pytest.LogCaptureFixture) -> None:
    encoder("chatml", "chatml")
    encoder("chatml", "chatml", alignment="span")
    encoder("chatml", "gemma", alignment="longest")
    assert caplog.text == ""


def test_identity_between_different_tokenizers_is_refused() -> None:
    with pytest.raises(AlignmentError, match="span"):
        encoder("chatml", "gemma", alignment="identity")


def test_span_keeps_the_tokens_of_each_model() -> None:
    prompt = encoder("chatml", "gemma", alignment="span").encode(QUESTION)

    own_text = rendered("gemma", QUESTION, True)[0]
    assert prompt.sharers[0].input_ids == tokenizer_of("gemma")(own_text, add_special_tokens=False)["input_ids"]
    receiver, sharer = mapped(prompt)
    assert text_of("chatml", receiver) == QUESTION[0]["content"]
    assert text_of("gemma", sharer[-1:]).endswith("?")
    assert prompt.sharers[0].source_index[-1] == -1
    assert prompt.sharers[0].position_ids is None


def test_template_tokens_are_fused_by_option() -> None:
    prompt = encoder("chatml", "gemma", alignment="span_template").encode(QUESTION)
    by_span, index = encoder("chatml", "gemma", alignment="span").encode(QUESTION), prompt.sharers[0].source_index

    assert (prompt.receiver_ids, prompt.sharers[0].input_ids) == (by_span.receiver_ids, by_span.sharers[0].input_ids)
    assert index[-1] == -1
    assert min(index[:-1]) >= 0
    pairs = zip(index, by_span.sharers[0].source_index, strict=True)
    assert {new == old for new, old in pairs if old >= 0} == {True}


def test_the_last_prompt_token_is_never_fused() -> None:
    # A template whose prompt ends with the message itself.
    bare = PromptTemplate("bare", "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for alignment in ("identity", "first", "longest", "span", "span_template", "span_cut"):
        specs = TokenizerSpec(tiny_tokenizer("plain"), bare), [TokenizerSpec(tiny_tokenizer("plain"), bare)]
        prompt = Encoder(*specs, alignment).encode([{"role": "user", "content": "the correct answer"}])
        assert prompt.sharers[0].source_index == [*range(len(prompt.receiver_ids) - 1), -1]


def test_retokenized_prompts_end_in_a_real_token() -> None:
    for receiver, sharer in (("phi", "chatml"), ("chatml", "phi")):
        prompt = encoder(receiver, sharer, alignment="first").encode([*EXAMPLE, *QUESTION])
        other = prompt.sharers[0]
        for ids, mask, positions in (
            (prompt.receiver_ids, prompt.attention_mask, prompt.position_ids),
            (other.input_ids, other.attention_mask, other.position_ids),
        ):
            assert (mask or [1])[-1] == 1
            assert positions in (None, list(range(len(ids))))
        # One of the two is padded between sections.
        assert (prompt.attention_mask is None) != (other.attention_mask is None)
        real = prompt.attention_mask or [1] * len(prompt.receiver_ids)
        text = rendered(receiver, [*EXAMPLE, *QUESTION], True)[0]
        assert text_of(receiver, [i for i, r in zip(prompt.receiver_ids, real, strict=True) if r]) == text
        assert [s for s in other.source_index if s >= 0] == [p for p, s in enumerate(other.source_index) if s >= 0]


def test_several_sharers_each_by_another_strategy() -> None:
    prompt = encoder("phi", "phi", "chatml", "gemma").encode([*EXAMPLE, *QUESTION])
    identical, *others = prompt.sharers
    real = [place for place, bit in enumerate(prompt.attention_mask or []) if bit]
    assert 0 in (prompt.attention_mask or [])
    # The first has the receiver's real tokens, the others have padded columns.
    assert identical.input_ids == [prompt.receiver_ids[place] for place in real]
    assert [identical.source_index[place] for place in real] == [*range(len(real) - 1), -1]
    for other in others:
        assert {
            s for s, p in zip(other.source_index, range(len(prompt.receiver_ids)), strict=True) if s not in (-1, p)
        } == set()
    assert others[0].source_index == others[1].source_index


def private_contexts(fact: str, question: str = QUESTION[0]["content"]) -> list[Conversation]:
    """Sharer conversations with a fact that the receiver does not have."""
    return [
        [{"role": "system", "content": fact}, {"role": "user", "content": question}],
        [{"role": "user", "content": f"{fact} {question}"}],
        [
            {"role": "user", "content": fact},
            {"role": "assistant", "content": "I see."},
            {"role": "user", "content": question},
        ],
    ]


@pytest.mark.parametrize("private", private_contexts("The capital of Arlen is Velmora."))
@pytest.mark.parametrize("sharer", STYLES)
@pytest.mark.parametrize("receiver", ["chatml", "gemma"])
def test_private_context_maps_the_text_in_common(receiver: str, sharer: str, private: Conversation) -> None:
    prompt = encoder(receiver, sharer, alignment="span").encode(QUESTION, private)

    assert prompt.receiver_ids == encoder(receiver, sharer, alignment="span").encode(QUESTION).receiver_ids
    own_text = rendered(sharer, private, True)[0]
    assert prompt.sharers[0].input_ids == tokenizer_of(sharer)(own_text, add_special_tokens=False)["input_ids"]
    mine, theirs = mapped(prompt)
    assert text_of(receiver, mine).strip() == QUESTION[0]["content"]
    assert "Velmora" not in text_of(sharer, theirs)
    # The sharer's tokens are at the end of its prompt, after the fact.
    assert min(s for s in prompt.sharers[0].source_index if s >= 0) > len(prompt.sharers[0].input_ids) // 4


@pytest.mark.parametrize("alignment", ["identity", "first", "longest", "span"])
@pytest.mark.parametrize("private", private_contexts("The capital of Arlen is Velmora."))
def test_private_context_with_every_strategy(alignment: TokenAlignment, private: Conversation) -> None:
    sharer = "chatml" if alignment == "identity" else "phi"
    one = encoder("chatml", sharer, alignment=alignment)
    prompt = one.encode(QUESTION, private)
    mine, _ = mapped(prompt)
    assert text_of("chatml", mine) == QUESTION[0]["content"]
    visible = prompt.sharers[0].attention_mask or [1] * len(prompt.sharers[0].input_ids)
    seen = [token for token, bit in zip(prompt.sharers[0].input_ids, visible, strict=True) if bit]
    assert "Velmora" in text_of(sharer, seen)
    # The same with the response at the end, in training.
    example = one.encode_example(EXAMPLE, [*private, EXAMPLE[-1]])
    assert example.prompt == prompt
    assert example == one.encode_example(EXAMPLE, private)


def test_each_sharer_may_have_another_conversation() -> None:
    pair = encoder("chatml", "chatml", "gemma", alignment="span")
    first, second = private_contexts("The capital of Arlen is Velmora.")[:2]
    prompt = pair.encode(QUESTION, [first, second])
    assert prompt.sharers[0] == pair.encode(QUESTION, first).sharers[0]
    assert prompt.sharers[1] == pair.encode(QUESTION, second).sharers[1]
    assert pair.encode(QUESTION, [None, second]).sharers[0] == pair.encode(QUESTION).sharers[0]
    assert pair.encode_example(EXAMPLE, [[*first, EXAMPLE[-1]], None]).prompt.sharers[0] == prompt.sharers[0]
    with pytest.raises(PromptError, match="each of the 2"):
        pair.encode(QUESTION, [first])


def test_a_sharer_with_nothing_in_common_is_not_fused() -> None:
    prompt = encoder("chatml", "chatml").encode(QUESTION, [{"role": "user", "content": "Name a river!"}])
    assert set(prompt.sharers[0].source_index) == {-1}


@settings(deadline=None, max_examples=60)
@given(
    chats=st.lists(conversations(max_messages=3), min_size=1, max_size=4),
    names=st.tuples(*[st.sampled_from(sorted(STYLES))] * 2),
    alignment=st.sampled_from(["auto", "first", "longest", "span", "span_template", "span_cut"]),
)
def test_a_batch_is_encoded_as_its_conversations_alone(
    chats: list[Conversation], names: tuple[str, str], alignment: TokenAlignment
) -> None:
    one = encoder(*names, alignment=alignment)
    together = one.encode_many(chats)
    assert together == [one.encode(chat) for chat in chats]
    for prompt in together:
        for sharer in prompt.sharers:
            assert len(sharer.source_index) == len(prompt.receiver_ids)
            assert sharer.source_index[-1] == -1
            assert all(-1 <= source < len(sharer.input_ids) for source in sharer.source_index)
            assert [s for s in sharer.source_index if s >= 0] == sorted(s for s in sharer.source_index if s >= 0)
            visible = sharer.attention_mask or [1] * len(sharer.input_ids)
            assert all(visible[source] for source in sharer.source_index if source >= 0)
            assert visible[-1]


@pytest.mark.parametrize("name", ["question_answer", "dialogue", "plain"])
def test_base_models_use_plain_text(name: str) -> None:
    base = tiny_tokenizer("plain")
    spec = TokenizerSpec(base, PromptTemplate.from_name_or_file(name))
    messages = [{"role": "system", "content": "Be terse."}, *EXAMPLE, {"role": "user", "content": "And of Ys?"}]

    both = Encoder(spec, [TokenizerSpec(tokenizer_of("gemma"))], "span")
    example = both.encode_example([*messages, {"role": "assistant", "content": "Sorin."}])

    prompt = base.decode(example.prompt.receiver_ids)
    assert not prompt.startswith(base.bos_token)  # this tokenizer adds none by itself
    for message in messages:
        assert message["content"] in prompt
    assert base.decode(example.response_ids).strip() == "Sorin.<|im_end|>"
    fused = base.decode(mapped(example.prompt)[0])  # a token may hold the space before its word
    assert fused.replace(" ", "") == "".join(m["content"] for m in messages).replace(" ", "")
    assert base.chat_template is None


def test_malformed_conversations_are_named_errors() -> None:
    with pytest.raises(PromptError, match="at least one"):
        encoder("chatml", "chatml").encode([])
    with pytest.raises(PromptError, match="'bot'"):
        encoder("chatml", "chatml").encode([{"role": "bot", "content": "Hi"}])
    with pytest.raises(DataError, match="empty"):
        encoder("chatml", "chatml").encode_example([*QUESTION, {"role": "assistant", "content": " "}])
    with pytest.raises(PromptError, match="2 conversations, but 1"):
        encoder("chatml", "chatml").encode_many([QUESTION, QUESTION], [None])


def state_of(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    return tokenizer.chat_template, tokenizer.special_tokens_map, len(tokenizer), tokenizer.backend_tokenizer.to_str()


def test_tokenizers_are_never_changed() -> None:
    before = [state_of(tokenizer_of(name)) for name in ("chatml", "gemma")]
    for alignment in ("first", "span"):
        encoder("chatml", "gemma", alignment=alignment).encode_example(EXAMPLE)
    assert [state_of(tokenizer_of(name)) for name in ("chatml", "gemma")] == before


def test_an_encoder_can_be_pickled() -> None:
    for alignment in ("auto", "longest", "span"):
        one = encoder("chatml", "gemma", alignment=alignment)
        expected = one.encode_example(EXAMPLE)
        again = pickle.loads(pickle.dumps(one))
        assert again.encode_example(EXAMPLE) == expected
        assert again.fingerprint == one.fingerprint


def test_the_fingerprint_differs_where_tokens_differ() -> None:
    variants = [
        encoder("chatml", "gemma", alignment="span"),
        encoder("chatml", "gemma", alignment="span_template"),
        encoder("chatml", "gemma", alignment="first"),
        encoder("gemma", "chatml", alignment="span"),
        encoder("chatml", "phi", alignment="span"),
        Encoder(
            TokenizerSpec(tokenizer_of("chatml"), PromptTemplate.from_name_or_file("plain")),
            [TokenizerSpec(tokenizer_of("gemma"))],
            "span",
        ),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert encoder("chatml", "gemma").fingerprint == encoder("chatml", "gemma", alignment="longest").fingerprint

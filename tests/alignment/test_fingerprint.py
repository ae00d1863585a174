import copy
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from c2c_lightning.alignment.fingerprint import same_tokens, tokenizer_fingerprint
from tests.alignment.styles import STYLES, tokenizer_of


def rebuilt(
    tokenizer: PreTrainedTokenizerBase, change: Callable[[Tokenizer], None] | None = None
) -> PreTrainedTokenizerBase:
    """The same tokenizer, made again from its file, perhaps changed."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if change is not None:
        change(backend)
    again = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    )
    again.chat_template = tokenizer.chat_template
    return again


def test_equal_content_is_equal() -> None:
    for name in STYLES:
        original = tokenizer_of(name)
        again = rebuilt(original)
        original("padded and cut", padding="max_length", max_length=3, truncation=True)  # a state, not content
        assert tokenizer_fingerprint(original) == tokenizer_fingerprint(again)
        assert same_tokens(original, again)
        assert same_tokens(again, original)


def test_every_style_differs_from_every_other() -> None:
    assert len({tokenizer_fingerprint(tokenizer_of(name)) for name in STYLES}) == len(STYLES)
    names = sorted(STYLES)
    assert not any(same_tokens(tokenizer_of(a), tokenizer_of(b)) for a in names for b in names if a != b)


def test_another_vocabulary_normaliser_or_pre_tokeniser_differs() -> None:
    original = tokenizer_of("chatml")

    def split_digits(backend: Tokenizer) -> None:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )

    def no_normaliser(backend: Tokenizer) -> None:
        backend.normalizer = None

    for other in (rebuilt(original, split_digits), rebuilt(original, no_normaliser), tokenizer_of("chatml", 380)):
        assert not same_tokens(original, other)
        assert tokenizer_fingerprint(original) != tokenizer_fingerprint(other)


def test_tokens_that_only_one_side_has_do_not_contradict() -> None:
    # As Qwen2.5, which lacks the reasoning marks of Qwen3.
    original = tokenizer_of("chatml")
    newer = rebuilt(original, lambda backend: backend.add_tokens([AddedToken("<think>", normalized=False)]))
    assert same_tokens(original, newer)
    assert same_tokens(newer, original)
    assert tokenizer_fingerprint(original) != tokenizer_fingerprint(newer)


def test_the_same_id_for_other_tokens_contradicts() -> None:
    original = tokenizer_of("chatml")
    first, second = (
        rebuilt(original, lambda backend, text=text: backend.add_tokens([AddedToken(text, normalized=False)]))
        for text in ("<a>", "<b>")
    )
    assert not same_tokens(first, second)
    both = rebuilt(
        original, lambda backend: backend.add_tokens([AddedToken(t, normalized=False) for t in ("<b>", "<a>")])
    )
    assert not same_tokens(first, both)


def test_another_template_is_another_fingerprint_but_the_same_tokens() -> None:
    original = tokenizer_of("phi")
    other = copy.copy(original)
    other.chat_template = "{{ messages }}"
    assert tokenizer_fingerprint(original) != tokenizer_fingerprint(other)
    assert same_tokens(original, other)

"""The rules of `first` and `longest`, on small tokenizers."""

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from c2c_lightning.alignment import retokenization, retokenize
from c2c_lightning.errors import AlignmentError
from tests.alignment.styles import STYLES, tokenizer_of


def words(vocabulary: list[str], **special: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these words only."""
    vocab = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=_merges(vocab)))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("|", "isolated")
    tokenizer.add_special_tokens([word for word in vocabulary if word.startswith("<")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Each word of several letters is made of a known word and its last letter."""
    return [(word[:-1], word[-1]) for word in vocab if not word.startswith("<") and len(word) > 1]


def test_one_token_is_taken() -> None:
    receiver, sharer = words(["a", "b", "ab"]), words(["b", "a", "x", "ab"])
    assert retokenize(receiver, sharer, [0, 1, 2], "first") == [1, 0, 3]


def test_of_several_tokens_the_first_or_the_longest() -> None:
    receiver, sharer = words(["a", "b", "c", "ab", "abc", "abcc"]), words(["a", "b", "c", "bc", "bcc"])
    assert retokenize(receiver, sharer, [5], "first") == [0]
    assert retokenize(receiver, sharer, [5], "longest") == [4]


def test_of_equally_long_tokens_the_first() -> None:
    receiver, sharer = words(["a", "b", "ab"]), words(["b", "a"])
    assert retokenize(receiver, sharer, [2], "longest") == [1]


def test_text_without_tokens_becomes_unknown_or_0() -> None:
    receiver = words(["a", "z"])
    assert retokenize(receiver, words(["a", "b"]), [1], "first") == [0]
    assert retokenize(receiver, words(["a", "<unk>"], unk_token="<unk>"), [1], "longest") == [1]


ROLES = {"pad_token": "<pad>", "eos_token": "<end>", "bos_token": "<begin>", "unk_token": "<unk>"}


def test_special_tokens_map_by_role() -> None:
    receiver = words(["a", "<pad>", "<end>", "<begin>", "<unk>"], **ROLES)
    sharer = words(["<0>", "<1>", "<2>", "<3>", "a"], **dict(zip(ROLES, ["<3>", "<2>", "<1>", "<0>"], strict=True)))
    assert retokenize(receiver, sharer, [1, 2, 3, 4, 0], "first") == [3, 2, 1, 0, 4]


def test_of_several_roles_the_last_counts() -> None:
    receiver = words(["a", "<x>"], pad_token="<x>", eos_token="<x>", bos_token="<x>")
    sharer = words(["a", "<pad>", "<end>", "<begin>", "<unk>"], **ROLES)
    assert retokenize(receiver, sharer, [1], "first") == [3]


def test_the_end_token_pads_where_no_other_does() -> None:
    receiver = words(["a", "<end>"], eos_token="<end>")
    sharer = words(["a", "<pad>", "<end>"], pad_token="<pad>", eos_token="<end>")
    assert retokenize(receiver, sharer, [1], "first") == [2]
    assert retokenization.pad_id(receiver) == 1
    assert receiver.pad_token is None  # nothing is written into tokenizers that are passed in


def test_special_tokens_without_counterpart_map_by_text_else_to_unknown() -> None:
    receiver = words(["a", "<begin>", "<extra>"], bos_token="<begin>", extra_special_tokens=["<extra>"])
    sharer = words(["a", "<extra>", "<unk>", "<begin>"], unk_token="<unk>")
    assert retokenize(receiver, sharer, [1, 2], "first") == [3, 1]
    assert retokenize(receiver, words(["a", "<unk>"], unk_token="<unk>"), [1, 2], "first") == [1, 1]
    assert retokenize(receiver, words(["a", "b"]), [1, 2], "first") == [0, 0]


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=20), names=st.tuples(*[st.sampled_from(sorted(STYLES))] * 2))
def test_one_sharer_token_for_each_receiver_token(text: str, names: tuple[str, str]) -> None:
    receiver, sharer = map(tokenizer_of, names)
    ids = receiver(text, add_special_tokens=False)["input_ids"]
    for strategy in ("first", "longest"):
        mapped = retokenize(receiver, sharer, ids, strategy)
        assert len(mapped) == len(ids)
        assert all(0 <= token < len(sharer) for token in mapped)


def test_the_cache_is_never_handed_out() -> None:
    receiver, sharer = tokenizer_of("chatml"), tokenizer_of("gemma")
    ids = receiver("What is the capital?")["input_ids"]
    once = retokenize(receiver, sharer, ids, "first")
    once.clear()
    assert retokenize(receiver, sharer, ids, "first") != []


def test_a_changed_tokenizer_is_looked_at_again() -> None:
    receiver, sharer = words(["a", "<x>"], eos_token="<x>"), words(["a", "<1>", "<2>"], eos_token="<1>")
    assert retokenize(receiver, sharer, [1], "first") == [1]
    sharer.eos_token = "<2>"
    assert retokenize(receiver, sharer, [1], "first") == [2]


def test_the_cache_keeps_no_tokenizer_alive() -> None:
    gc.collect()
    before = len(retokenization._cache)
    retokenize(words(["a"]), words(["a"]), [0], "first")
    gc.collect()
    assert len(retokenization._cache) == before


def test_other_strategies_are_a_named_error() -> None:
    with pytest.raises(AlignmentError, match="first"):
        retokenize(words(["a"]), words(["a"]), [0], "span")

"""Open vocabulary: words that several tokenizers write as one token, and words that one of them writes in pieces."""

import re
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

OPEN_TYPES = ("word", "title")
"""Types of the values: lower-case words, and capitalised ones."""

PIECES = "{}_in_pieces"
"""Types of the words that not all tokenizers write as one token."""

_MOST_PIECES = 3
"""Tokens of such a word in any tokenizer: fragments of other languages have more."""

_MARKS = re.compile("^[\u0120\u2581]")
"""How byte-level and SentencePiece vocabularies write the space in front of a word."""
_WORD, _TITLE = re.compile("[a-z]{4,14}"), re.compile("[A-Z][a-z]{3,13}")


def token_words(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Words of 4 to 14 letters by type: one token of each tokenizer behind a space, or of some and pieces of others.

    A lower-case word is taken if its capitalised form is a token of one of the tokenizers too, which leaves out most
    fragments of words.

    Args:
        folders: folders of models or tokenizers.
    """
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
    vocabularies = [_words(tokenizer) for tokenizer in tokenizers]
    shared, some = set.intersection(*vocabularies), set.union(*vocabularies)
    rest = [word for word in sorted(some - shared) if _WORD.fullmatch(word) or _TITLE.fullmatch(word)]
    pieces = set(rest).difference(*(_long(tokenizer, rest) for tokenizer in tokenizers))
    types = {}
    for kind, words in {"{}": shared, PIECES: pieces}.items():
        lower = [word for word in words if _WORD.fullmatch(word) and word.capitalize() in some]
        types[kind.format("word")] = sorted(lower)
        types[kind.format("title")] = sorted(word for word in words if _TITLE.fullmatch(word))
    return types


def _words(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    return {_MARKS.sub("", token) for token in tokenizer.get_vocab() if _MARKS.match(token)}


def _long(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> set[str]:
    """The words that a tokenizer writes in more pieces than `_MOST_PIECES`."""
    encoded = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return {word for word, tokens in zip(words, encoded, strict=True) if len(tokens) > _MOST_PIECES}

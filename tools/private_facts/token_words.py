"""Open vocabulary: words that several tokenizers write as one token."""

import re
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

OPEN_TYPES = ("word", "title")
"""Types of the values: lower-case words, and capitalised ones."""

_MARKS = re.compile("^[\u0120\u2581]")
"""How byte-level and SentencePiece vocabularies write the space in front of a word."""
_WORD, _TITLE = re.compile("[a-z]{4,14}"), re.compile("[A-Z][a-z]{3,13}")


def token_words(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Words of 4 to 14 letters that each tokenizer writes as one token behind a space, by type.

    A lower-case word is taken if its capitalised form is a token of one of the tokenizers too, which leaves out most
    fragments of words.

    Args:
        folders: folders of models or tokenizers.
    """
    vocabularies = [_words(AutoTokenizer.from_pretrained(folder)) for folder in folders]
    shared, some = set.intersection(*vocabularies), set.union(*vocabularies)
    words = [word for word in shared if _WORD.fullmatch(word) and word.capitalize() in some]
    return {"word": sorted(words), "title": sorted(word for word in shared if _TITLE.fullmatch(word))}


def _words(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    return {_MARKS.sub("", token) for token in tokenizer.get_vocab() if _MARKS.match(token)}

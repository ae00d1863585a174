"""Compares tokenizers by content, not by the names of their files."""

import hashlib
import json
from typing import Any
from weakref import WeakKeyDictionary

_base_digests: "WeakKeyDictionary[Any, tuple[int, str]]" = WeakKeyDictionary()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of vocabulary, rules, special tokens and chat template: 64 hexadecimal digits."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    parts = [_base_digest(tokenizer), _added(tokenizer), special, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def same_tokens(first: Any, second: Any) -> bool:
    """Whether the token ids of one tokenizer mean the same in the other.

    Vocabulary, merges, normalizer and pre-tokenizer must be equal. Added tokens may exist on one side only, as the
    reasoning marks of Qwen3 that Qwen2.5 lacks, but must not contradict each other.
    """
    if first is second:
        return True
    mine, theirs = _added(first), _added(second)
    if any(theirs.get(token, content) != content for token, content in mine.items()):
        return False
    ids = {content[0]: token for token, content in theirs.items()}
    if any(ids.get(content[0], token) != token for token, content in mine.items()):
        return False
    return _base_digest(first) == _base_digest(second)


def _added(tokenizer: Any) -> dict[int, list[Any]]:
    """Added tokens by id: text, and how they are matched in text."""
    return {
        int(token): [str(added.content), added.lstrip, added.rstrip, added.single_word, added.normalized]
        for token, added in tokenizer.added_tokens_decoder.items()
    }


def _base_digest(tokenizer: Any) -> str:
    """Digest of vocabulary, merges, normalizer and pre-tokenizer; cached, as a large vocabulary takes a second."""
    # Tokens that are added later change the size.
    size = len(tokenizer)
    known = _base_digests.get(tokenizer)
    if known is None or known[0] != size:
        known = _base_digests[tokenizer] = (size, _compute_base_digest(tokenizer))
    return known[1]


def _compute_base_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest = hashlib.sha256()
    if backend is None:
        digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()
    # Part by part: the whole backend includes the state of its last padding and truncation.
    for part in (backend.model, backend.normalizer, backend.pre_tokenizer):
        digest.update(b"-" if part is None else part.__getstate__())
    return digest.hexdigest()

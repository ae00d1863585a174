"""The released token alignment: the receiver's tokens re-tokenized for the sharer, one sharer token for each.

Kept for parity with published fusers (paper A.1.2). It is lossy: partial characters become U+FFFD, and of a receiver
token that corresponds to several sharer tokens only one is kept. Span alignment (`span_alignment.py`) is lossless.
"""

from collections.abc import Iterable
from typing import Any, Literal
from weakref import WeakKeyDictionary

from c2c_lightning.errors import AlignmentError

RetokenizeStrategy = Literal["first", "longest"]

# Sharer token of each receiver token, per pair of tokenizers, strategy and state of the tokenizers.
_cache: "WeakKeyDictionary[Any, WeakKeyDictionary[Any, dict[tuple[object, ...], dict[int, int]]]]" = WeakKeyDictionary()


def retokenize(
    receiver_tokenizer: Any,
    sharer_tokenizer: Any,
    receiver_ids: Iterable[int],
    strategy: str,
) -> list[int]:
    """One sharer token for each receiver token, chosen as in the released code (paper A.1.2).

    Each receiver token is decoded alone and its text is encoded with the sharer's tokenizer. Of several tokens `first`
    takes the first and `longest` the one with the longest decoded text in characters, the first of equals. Special
    tokens map by role (padding, end, begin, unknown; the last that holds), else by their text, else to unknown.

    Raises:
        AlignmentError: for another strategy.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from c2c_lightning.embedded import path
        >>> receiver, sharer = (AutoTokenizer.from_pretrained(path(name)) for name in ("receiver", "sharer"))
        >>> ids = receiver.encode("What is the food?", add_special_tokens=False)
        >>> sharer.convert_ids_to_tokens(retokenize(receiver, sharer, ids, "longest"))
        ['W', 'at', 'Ġis', 'Ġthe', 'Ġfood', '?']
    """
    if strategy not in ("first", "longest"):
        raise AlignmentError(f"Tokens are re-tokenized with `first` or `longest`, not {strategy!r}.")
    known = _cache_of(receiver_tokenizer, sharer_tokenizer, strategy)
    ids = [int(token) for token in receiver_ids]
    for token in ids:
        if token not in known:
            known[token] = _counterpart(receiver_tokenizer, sharer_tokenizer, token, strategy)
    return [known[token] for token in ids]


def pad_id(tokenizer: Any) -> int:
    """The padding token, or the end token where there is none.

    Raises:
        AlignmentError: when there is neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise AlignmentError(
        "A tokenizer with neither a padding nor an end token cannot pad batches and template sections."
    )


def _cache_of(receiver: Any, sharer: Any, strategy: str) -> dict[int, int]:
    pairs = _cache.setdefault(receiver, WeakKeyDictionary()).setdefault(sharer, {})
    # Tokens may be added, or given a role, after the first call.
    state = (strategy, len(receiver), _roles(receiver), len(sharer), _roles(sharer))
    return pairs.setdefault(state, {})


def _roles(tokenizer: Any) -> tuple[int | None, ...]:
    """Padding (or end), end, begin, unknown."""
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    return (eos if pad is None else pad, eos, tokenizer.bos_token_id, tokenizer.unk_token_id)


def _counterpart(receiver: Any, sharer: Any, token: int, strategy: str) -> int:
    text = _decode(receiver, token)
    if token in receiver.all_special_ids:
        return _special_counterpart(receiver, sharer, token, text)
    candidates = sharer.encode(text, add_special_tokens=False)
    if not candidates:
        return _unknown(sharer)
    if len(candidates) == 1 or strategy == "first":
        return int(candidates[0])
    return int(max(candidates, key=lambda candidate: len(_decode(sharer, candidate))))


def _special_counterpart(receiver: Any, sharer: Any, token: int, text: str) -> int:
    # Of several roles of one token the last counts, as in the released code.
    by_role = dict(zip(_roles(receiver), _roles(sharer), strict=True))
    if by_role.get(token) is not None:
        return int(by_role[token])  # type: ignore[arg-type]
    same_text = sharer.convert_tokens_to_ids(text)
    if same_text is not None and same_text != sharer.unk_token_id:
        return int(same_text)
    return _unknown(sharer)


def _unknown(tokenizer: Any) -> int:
    """The unknown token, else 0, as released."""
    return int(tokenizer.unk_token_id or 0)


def _decode(tokenizer: Any, token: int) -> str:
    text: str = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text

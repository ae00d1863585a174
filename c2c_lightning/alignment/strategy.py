"""Chooses the token alignment of a pair of tokenizers."""

import logging
from typing import Any, Literal, get_args

from c2c_lightning.alignment.fingerprint import same_tokens
from c2c_lightning.errors import AlignmentError

logger = logging.getLogger(__name__)

Strategy = Literal["identity", "first", "longest", "span", "span_template", "span_cut"]
TokenAlignment = Literal["auto", "identity", "first", "longest", "span", "span_template", "span_cut"]


def choose_strategy(receiver: Any, sharer: Any, token_alignment: TokenAlignment) -> Strategy:
    """The strategy for one sharer: `auto` is `identity` if the tokenizers agree, else `longest` (paper A.1.2).

    Chat templates are not compared: as released, a sharer of the same family gets the receiver's tokens.

    Raises:
        AlignmentError: for `identity` with tokenizers that differ, or an unknown strategy.
    """
    if token_alignment not in get_args(TokenAlignment):
        known = ", ".join(get_args(TokenAlignment))
        raise AlignmentError(f"token_alignment is {token_alignment!r}, but must be one of {known}.")
    if token_alignment in ("span", "span_template", "span_cut"):
        return token_alignment
    # After `span`, which needs no comparison: the digest of a large vocabulary takes a second.
    agree = same_tokens(receiver, sharer)
    if token_alignment == "auto":
        return "identity" if agree else "longest"
    if token_alignment == "identity" and not agree:
        raise AlignmentError(
            "token_alignment is `identity`, but the tokenizers of receiver and sharer differ. Use `span`, or `longest` "
            "for a fuser that was trained with it."
        )
    if token_alignment != "identity" and agree:
        logger.warning(
            "Receiver and sharer have the same tokenizer, but token_alignment is `%s`: the sharer gets a re-tokenized "
            "copy, and template tokens are not fused. With `auto` it gets the receiver's tokens.",
            token_alignment,
        )
    return token_alignment

"""Encoders over tiny tokenizers."""

from c2c_lightning.data.encode import Encoder, TokenizerSpec
from tests.tiny import tiny_tokenizer


def shared_encoder() -> Encoder:
    """One tokenizer for receiver and sharer."""
    tokenizer = TokenizerSpec(tiny_tokenizer("chatml"))
    return Encoder(tokenizer, [tokenizer])


def span_encoder() -> Encoder:
    """Two tokenizers, the sharer reads its own tokens."""
    return Encoder(TokenizerSpec(tiny_tokenizer("chatml")), [TokenizerSpec(tiny_tokenizer("header"))], "span")

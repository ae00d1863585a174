"""Encoders over tiny tokenizers, and a conversation."""

from c2c_lightning.data.encode import Encoder, TokenAlignment, TokenizerSpec
from tests.alignment.styles import tokenizer_of
from tests.tiny import tiny_tokenizer

Conversation = list[dict[str, str]]

QUESTION: Conversation = [{"role": "user", "content": "What is the capital of Arlen?"}]
EXAMPLE: Conversation = [*QUESTION, {"role": "assistant", "content": "Velmora."}]


def encoder(receiver: str, *sharers: str, alignment: TokenAlignment = "auto") -> Encoder:
    return Encoder(TokenizerSpec(tokenizer_of(receiver)), [TokenizerSpec(tokenizer_of(s)) for s in sharers], alignment)


def text_of(name: str, ids: list[int], places: list[int] | None = None) -> str:
    return tokenizer_of(name).decode(ids if places is None else [ids[place] for place in places])


def shared_encoder() -> Encoder:
    """One tokenizer for receiver and sharer."""
    tokenizer = TokenizerSpec(tiny_tokenizer("chatml"))
    return Encoder(tokenizer, [tokenizer])

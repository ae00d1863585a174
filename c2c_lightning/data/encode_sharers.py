"""Puts the tokens of receiver and sharers together: token ids, positions and source indices for every strategy."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.common_context import shared_texts
from c2c_lightning.alignment.released_chat import PaddedTokens, SharerChat, align_columns, fill_padding
from c2c_lightning.alignment.retokenization import pad_id
from c2c_lightning.alignment.strategy import Strategy
from c2c_lightning.alignment.template_alignment import OWN_TOKENS, align_messages
from c2c_lightning.data.messages import Conversation


@dataclass(frozen=True)
class SharerEncoding:
    """One sharer's part of a prompt.

    Attributes:
        input_ids: its tokens.
        source_index: for each receiver token the position in `input_ids` that it is fused with, -1 if none.
        position_ids: position of each token, None for 0, 1, 2, ...
        attention_mask: 0 for padding between sections, None if there is none.
    """

    input_ids: list[int]
    source_index: list[int]
    position_ids: list[int] | None = None
    attention_mask: list[int] | None = None


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as tokens of every model.

    Attributes:
        receiver_ids: the receiver's tokens; the last one is never padding.
        sharers: each sharer's part.
        position_ids: position of each receiver token, None for 0, 1, 2, ...
        attention_mask: 0 for padding between sections, None if there is none.
    """

    receiver_ids: list[int]
    sharers: tuple[SharerEncoding, ...]
    position_ids: list[int] | None = None
    attention_mask: list[int] | None = None


@dataclass(frozen=True)
class SharerPrompt:
    """The prompt of one sharer."""

    strategy: Strategy
    tokenizer: ChatTokenizer
    messages: Conversation
    chat: TokenizedChat


def encode_prompt(
    tokenizer: ChatTokenizer, messages: Conversation, chat: TokenizedChat, sharers: Sequence[SharerPrompt]
) -> EncodedPrompt:
    """The prompt as tokens of every model; tokenizer, messages and chat are the receiver's.

    With `first` or `longest` the receiver's tokens are in the columns of the released alignment: positions count
    columns, and padding between sections is masked. Padding at the end is dropped, so that the last token of every
    model is a real one: the receiver's answer starts from it.
    """
    retokenized = {
        number: SharerChat(s.tokenizer.tokenizer, s.chat, shared_texts(messages, s.messages), s.strategy)
        for number, s in enumerate(sharers)
        if s.strategy in ("first", "longest")
    }
    if not retokenized:
        return EncodedPrompt(list(chat.ids), tuple(_encode_sharer(messages, chat, sharer) for sharer in sharers))
    aligned = align_columns(tokenizer.tokenizer, chat, list(retokenized.values()))
    receiver = _without_end_padding(aligned.receiver)
    padded = dict(zip(retokenized, map(_without_end_padding, aligned.sharers), strict=True))
    fused = [column if is_message else -1 for column, is_message in enumerate(aligned.is_message[: len(receiver)])]
    encoded: list[SharerEncoding] = []
    for number, sharer in enumerate(sharers):
        if number in padded:
            ids = fill_padding(padded[number], pad_id(sharer.tokenizer.tokenizer))
            encoded.append(SharerEncoding(ids, _without_last(fused), *_positions_and_mask(padded[number])))
        else:
            encoded.append(_in_columns(_encode_sharer(messages, chat, sharer), receiver))
    ids = fill_padding(receiver, pad_id(tokenizer.tokenizer))
    return EncodedPrompt(ids, tuple(encoded), *_positions_and_mask(receiver))


def _encode_sharer(messages: Conversation, chat: TokenizedChat, sharer: SharerPrompt) -> SharerEncoding:
    """`identity` or one of `OWN_TOKENS`."""
    if sharer.strategy == "identity" and sharer.messages == messages:
        return SharerEncoding(list(chat.ids), _without_last(list(range(len(chat.ids)))))
    align = OWN_TOKENS.get(sharer.strategy, align_messages)
    index = align(chat, sharer.chat, shared_texts(messages, sharer.messages))
    return SharerEncoding(list(sharer.chat.ids), _without_last(index))


def _in_columns(plain: SharerEncoding, receiver: PaddedTokens) -> SharerEncoding:
    """A sharer that keeps its tokens, where another sharer puts the receiver's tokens in columns."""
    sources = iter(plain.source_index)
    return SharerEncoding(plain.input_ids, [-1 if token is None else next(sources) for token in receiver])


def _without_end_padding(tokens: PaddedTokens) -> PaddedTokens:
    return tokens[: max((column for column, token in enumerate(tokens) if token is not None), default=-1) + 1]


def _without_last(index: list[int]) -> list[int]:
    """The last prompt token is not fused: the receiver computes it on the fused cache."""
    return [*index[:-1], -1] if index else index


def _positions_and_mask(tokens: PaddedTokens) -> tuple[list[int] | None, list[int] | None]:
    """Position ids and attention mask; None when there is no padding."""
    if None not in tokens:
        return None, None
    return list(range(len(tokens))), [int(token is not None) for token in tokens]

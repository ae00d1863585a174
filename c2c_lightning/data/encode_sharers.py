"""One prompt from what each model reads: slots, positions and source indices for every strategy."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.common_context import shared_texts
from c2c_lightning.alignment.released_chat import SharerChat, Slots, fill, lay_out
from c2c_lightning.alignment.retokenization import pad_id
from c2c_lightning.alignment.strategy import Strategy
from c2c_lightning.alignment.template_alignment import OWN_TOKENS, align_messages
from c2c_lightning.data.messages import Conversation


@dataclass(frozen=True)
class SharerEncoding:
    """One sharer's part of a prompt.

    Attributes:
        input_ids: its tokens.
        source_index: for each receiver token the position in `input_ids` that it reads, -1 if none.
        position_ids: position of each token, None for 0, 1, 2, ...
        attention_mask: 0 for padding between sections, None if there is none.
    """

    input_ids: list[int]
    source_index: list[int]
    position_ids: list[int] | None = None
    attention_mask: list[int] | None = None


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as every model reads it.

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
class Reading:
    """What one sharer was told and how it reads it.

    Attributes:
        strategy: how the receiver's tokens find this sharer's.
        reader: the sharer's template and tokenizer.
        told: the messages it was told.
        chat: these messages as it reads them.
    """

    strategy: Strategy
    reader: ChatTokenizer
    told: Conversation
    chat: TokenizedChat


def assemble(
    reader: ChatTokenizer, messages: Conversation, chat: TokenizedChat, sharers: Sequence[Reading]
) -> EncodedPrompt:
    """A prompt as every model reads it.

    Args:
        reader: the receiver's template and tokenizer.
        messages: what the receiver was told.
        chat: these messages as it reads them.
        sharers: the sharers.

    Returns:
        The prompt. With `first` or `longest` the receiver's tokens stand in the slots of the released alignment:
        positions count slots, and padding between sections is masked. Padding at the end is dropped, so that the last
        token of every model is a real one: the receiver's answer is read off it.
    """
    retokenized = {
        number: SharerChat(s.reader.tokenizer, s.chat, shared_texts(messages, s.told), s.strategy)
        for number, s in enumerate(sharers)
        if s.strategy in ("first", "longest")
    }
    if not retokenized:
        return EncodedPrompt(list(chat.ids), tuple(_encode_sharer(messages, chat, sharer) for sharer in sharers))
    row = lay_out(reader.tokenizer, chat, list(retokenized.values()))
    receiver = _without_tail(row.receiver)
    slots = dict(zip(retokenized, map(_without_tail, row.sharers), strict=True))
    fused = [slot if message else -1 for slot, message in enumerate(row.is_message[: len(receiver)])]
    encoded: list[SharerEncoding] = []
    for number, sharer in enumerate(sharers):
        if number in slots:
            ids = fill(slots[number], pad_id(sharer.reader.tokenizer))
            encoded.append(SharerEncoding(ids, _spare_last(fused), *_slot_marks(slots[number])))
        else:
            encoded.append(_in_slots(_encode_sharer(messages, chat, sharer), receiver))
    return EncodedPrompt(fill(receiver, pad_id(reader.tokenizer)), tuple(encoded), *_slot_marks(receiver))


def _encode_sharer(messages: Conversation, chat: TokenizedChat, sharer: Reading) -> SharerEncoding:
    """`identity`, `span` or `span_template`: the sharer's tokens stand for themselves."""
    if sharer.strategy == "identity" and sharer.told == messages:
        return SharerEncoding(list(chat.ids), _spare_last(list(range(len(chat.ids)))))
    align = OWN_TOKENS.get(sharer.strategy, align_messages)
    index = align(chat, sharer.chat, shared_texts(messages, sharer.told))
    return SharerEncoding(list(sharer.chat.ids), _spare_last(index))


def _in_slots(plain: SharerEncoding, receiver: Slots) -> SharerEncoding:
    """A sharer that reads its own tokens, beside one that makes the receiver's stand in slots."""
    places = iter(plain.source_index)
    index = [-1 if slot is None else next(places) for slot in receiver]
    return SharerEncoding(plain.input_ids, index)


def _without_tail(slots: Slots) -> Slots:
    """The slots up to the last token."""
    return slots[: max((slot for slot, token in enumerate(slots) if token is not None), default=-1) + 1]


def _spare_last(index: list[int]) -> list[int]:
    """The last prompt token is never fused: it is computed on the fused cache."""
    return [*index[:-1], -1] if index else index


def _slot_marks(slots: Slots) -> tuple[list[int] | None, list[int] | None]:
    """Position ids and attention mask of a row of slots; None when there is no padding."""
    if None not in slots:
        return None, None
    return list(range(len(slots))), [int(slot is not None) for slot in slots]

"""The released chat alignment: receiver and sharers in one row of slots (paper A.1.2).

Template sections keep each model's own tokens, the shorter ones padded on their right; message sections are the
receiver's tokens and, for each, one re-tokenised sharer token in the same slot. Only message slots are fused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.alignment.common_context import SharedText, content_ranges, shared_texts
from c2c_lightning.alignment.content_spans import Messages
from c2c_lightning.alignment.retokenization import RetokenizeStrategy, pad_id, retokenize
from c2c_lightning.errors import AlignmentError

Form = Literal["training", "generation", "prefilled"]
Slots = list[int | None]


@dataclass(frozen=True)
class SharerChat:
    """What one sharer brings to the row of slots.

    Attributes:
        tokenizer: its tokenizer.
        chat: the conversation as it reads it.
        shared: what it has in common with the receiver's conversation.
        strategy: how message tokens are expressed in its vocabulary.
    """

    tokenizer: Any
    chat: TokenizedChat
    shared: Sequence[SharedText]
    strategy: RetokenizeStrategy


@dataclass(frozen=True)
class SlotRow:
    """Token of each slot, None for padding.

    Attributes:
        receiver: the receiver's tokens.
        sharers: each sharer's, as many.
        is_message: whether a slot belongs to a message, so is fused.
        sections: `(kind, first slot, one past the last slot)`, kinds `template` and `message`.
    """

    receiver: Slots
    sharers: tuple[Slots, ...]
    is_message: list[bool]
    sections: list[tuple[str, int, int]]


def lay_out(receiver_tokenizer: Any, receiver: TokenizedChat, sharers: Sequence[SharerChat]) -> SlotRow:
    """Put receiver and sharers in one row of slots, as released.

    A message that one of the models does not see at all (its template drops it, or trims it to nothing) stays part of
    the template section around it.

    Args:
        receiver_tokenizer: the receiver's tokenizer.
        receiver: the conversation as the receiver reads it.
        sharers: the sharers that read re-tokenised messages.

    Returns:
        The row.
    """
    cuts = _message_cuts(receiver, sharers)
    row = SlotRow([], tuple([] for _ in sharers), [], [])
    done = [0] * (1 + len(sharers))
    for cut in [*cuts, None]:
        chats = [receiver, *(sharer.chat for sharer in sharers)]
        starts = [len(chat.ids) for chat in chats] if cut is None else [start for start, _ in cut]
        templates = [list(chat.ids[low:high]) for chat, low, high in zip(chats, done, starts, strict=True)]
        _append(row, "template", templates)
        if cut is None:
            break
        message = list(receiver.ids[cut[0][0] : cut[0][1]])
        copies = [retokenize(receiver_tokenizer, s.tokenizer, message, s.strategy) for s in sharers]
        _append(row, "message", [message, *copies])
        done = [end for _, end in cut]
    return row


def _append(row: SlotRow, kind: str, tokens: Sequence[list[int]]) -> None:
    width, start = max(len(ids) for ids in tokens), len(row.receiver)
    if not width:
        return
    for slots, ids in zip((row.receiver, *row.sharers), tokens, strict=True):
        slots.extend([*ids, *[None] * (width - len(ids))])
    row.is_message.extend([kind == "message"] * width)
    row.sections.append((kind, start, start + width))


def _message_cuts(receiver: TokenizedChat, sharers: Sequence[SharerChat]) -> list[list[tuple[int, int]]]:
    """Token ranges of the messages that all models see: per message the receiver's, then each sharer's."""
    common = set.intersection(*({_receiver_part(part) for part in sharer.shared} for sharer in sharers))
    columns = [_token_ranges(receiver, sorted(common))]
    for sharer in sharers:
        parts = sorted((part for part in sharer.shared if _receiver_part(part) in common), key=_receiver_part)
        columns.append(_token_ranges(sharer.chat, [(p.sharer_message, p.sharer_start, p.length) for p in parts]))
    cuts: list[list[tuple[int, int]]] = []
    done = [0] * len(columns)
    for row in zip(*columns, strict=True):
        # A token across the border of two messages belongs to the first; a template may have changed their order.
        cut = [(max(low, start), end) for (start, end), low in zip(row, done, strict=True) if end > max(low, start)]
        if len(cut) == len(columns):
            cuts.append(cut)
            done = [end for _, end in cut]
    return cuts


def _receiver_part(part: SharedText) -> tuple[int, int, int]:
    return part.receiver_message, part.receiver_start, part.length


def _token_ranges(chat: TokenizedChat, parts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Token range of each part; (0, 0) for one that is not shown."""
    return [(0, 0) if place is None else chat.token_range(*place) for place in content_ranges(chat, parts)]


@dataclass(frozen=True)
class ChatAlignment:
    """The released alignment of one conversation for one sharer; all lists have one entry per slot.

    Attributes:
        receiver_ids: the receiver's tokens, padding filled in.
        sharer_ids: the sharer's tokens, padding filled in.
        message_mask: True for message tokens: only these are fused.
        receiver_padding: True where the receiver's token is padding.
        sharer_padding: True where the sharer's token is padding.
        sections: `(kind, first slot, one past the last slot)`.
    """

    receiver_ids: list[int]
    sharer_ids: list[int]
    message_mask: list[bool]
    receiver_padding: list[bool]
    sharer_padding: list[bool]
    sections: list[tuple[str, int, int]]


def align_chat(
    receiver: ChatTokenizer,
    sharer: ChatTokenizer,
    messages: Messages,
    strategy: RetokenizeStrategy,
    form: Form = "generation",
) -> ChatAlignment:
    """The released alignment of a conversation.

    Args:
        receiver: how the receiver reads.
        sharer: how the sharer reads.
        messages: the conversation, response included.
        strategy: `first` or `longest`.
        form: `training` reads all messages, `generation` all but the last with the opening of the assistant's turn,
            `prefilled` adds the last message's text to that.

    Returns:
        The tokens of both, slot by slot.

    Raises:
        AlignmentError: for another form, or a conversation without a response to leave out.
    """
    mine, theirs = (_read_form(reader, messages, form) for reader in (receiver, sharer))
    read = messages[:-1] if form == "generation" else messages
    row = lay_out(receiver.tokenizer, mine, [SharerChat(sharer.tokenizer, theirs, shared_texts(read, read), strategy)])
    return ChatAlignment(
        fill(row.receiver, pad_id(receiver.tokenizer)),
        fill(row.sharers[0], pad_id(sharer.tokenizer)),
        row.is_message,
        [slot is None for slot in row.receiver],
        [slot is None for slot in row.sharers[0]],
        row.sections,
    )


def fill(slots: Slots, padding: int) -> list[int]:
    """The tokens of a row of slots.

    Args:
        slots: tokens, None for padding.
        padding: the padding token.

    Returns:
        The token ids.
    """
    return [padding if slot is None else slot for slot in slots]


def _read_form(reader: ChatTokenizer, messages: Messages, form: Form) -> TokenizedChat:
    if form == "training":
        return reader.read([messages], False)[0]
    if form not in ("generation", "prefilled") or len(messages) < 2:
        raise AlignmentError(f"A conversation of {len(messages)} messages has no form {form!r}.")
    if form == "generation":
        return reader.read([messages[:-1]], True)[0]
    return reader.read_prefilled(messages)

"""The released chat alignment: receiver and sharers in columns of equal length (paper A.1.2).

Template sections have each model's tokens, the shorter ones padded on the right. Message sections have the
receiver's tokens and, for each of them, one re-tokenized sharer token in the same column. Only message columns are
fused.
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
PaddedTokens = list[int | None]
"""Token of each column, None for padding."""


@dataclass(frozen=True)
class SharerChat:
    """One sharer's conversation, its text in common with the receiver's, and how message tokens are re-tokenized."""

    tokenizer: Any
    chat: TokenizedChat
    shared: Sequence[SharedText]
    strategy: RetokenizeStrategy


@dataclass(frozen=True)
class AlignedColumns:
    """Receiver and sharers in columns of equal length.

    Attributes:
        receiver: the receiver's tokens.
        sharers: each sharer's tokens.
        is_message: whether a column belongs to a message, so is fused.
        sections: `(kind, first column, one past the last column)`, kinds `template` and `message`.
    """

    receiver: PaddedTokens
    sharers: tuple[PaddedTokens, ...]
    is_message: list[bool]
    sections: list[tuple[str, int, int]]

    def append(self, kind: str, tokens: Sequence[list[int]]) -> None:
        """Add a section: the receiver's tokens, then each sharer's, padded on the right to equal length."""
        width, start = max(len(ids) for ids in tokens), len(self.receiver)
        if not width:
            return
        for columns, ids in zip((self.receiver, *self.sharers), tokens, strict=True):
            columns.extend([*ids, *[None] * (width - len(ids))])
        self.is_message.extend([kind == "message"] * width)
        self.sections.append((kind, start, start + width))


def align_columns(receiver_tokenizer: Any, receiver: TokenizedChat, sharers: Sequence[SharerChat]) -> AlignedColumns:
    """Align receiver and sharers as released.

    A message that one of the models does not render at all (its template drops it, or trims it to nothing) stays part
    of the template section around it.
    """
    columns = AlignedColumns([], tuple([] for _ in sharers), [], [])
    chats = [receiver, *(sharer.chat for sharer in sharers)]
    done = [0] * len(chats)
    for ranges in _message_ranges(receiver, sharers):
        columns.append("template", _token_lists(chats, done, [start for start, _ in ranges]))
        message = list(receiver.ids[ranges[0][0] : ranges[0][1]])
        # As released, the sharer never reads its tokens of a message, only those of this translation.
        copies = [retokenize(receiver_tokenizer, s.tokenizer, message, s.strategy) for s in sharers]
        columns.append("message", [message, *copies])
        done = [end for _, end in ranges]
    columns.append("template", _token_lists(chats, done, [len(chat.ids) for chat in chats]))
    return columns


def _token_lists(chats: Sequence[TokenizedChat], starts: Sequence[int], ends: Sequence[int]) -> list[list[int]]:
    return [list(chat.ids[start:end]) for chat, start, end in zip(chats, starts, ends, strict=True)]


def _message_ranges(receiver: TokenizedChat, sharers: Sequence[SharerChat]) -> list[list[tuple[int, int]]]:
    """Token ranges of the messages that all models render: per message the receiver's, then each sharer's."""
    common = set.intersection(*({_receiver_part(part) for part in sharer.shared} for sharer in sharers))
    per_model = [_token_ranges(receiver, sorted(common))]
    for sharer in sharers:
        parts = sorted((part for part in sharer.shared if _receiver_part(part) in common), key=_receiver_part)
        per_model.append(_token_ranges(sharer.chat, [(p.sharer_message, p.sharer_start, p.length) for p in parts]))
    messages: list[list[tuple[int, int]]] = []
    done = [0] * len(per_model)
    for ranges in zip(*per_model, strict=True):
        # A token across the border of two messages belongs to the first; a template may have changed their order.
        free = [(max(low, start), end) for (start, end), low in zip(ranges, done, strict=True) if end > max(low, start)]
        if len(free) == len(per_model):
            messages.append(free)
            done = [end for _, end in free]
    return messages


def _receiver_part(part: SharedText) -> tuple[int, int, int]:
    return part.receiver_message, part.receiver_start, part.length


def _token_ranges(chat: TokenizedChat, parts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Token range of each part; (0, 0) for one that is not rendered."""
    return [(0, 0) if part is None else chat.token_range(*part) for part in content_ranges(chat, parts)]


@dataclass(frozen=True)
class ChatAlignment:
    """The released alignment of one conversation with one sharer, one entry per column, with padding tokens filled in.

    Sections are `(kind, first column, one past the last column)`.
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
    """The released alignment of a conversation, response included.

    Of the forms, `training` has all messages, `generation` all but the last with the opening of the assistant's turn,
    and `prefilled` adds the text of the last message to that.
    """
    mine, theirs = (_encode_form(tokenizer, messages, form) for tokenizer in (receiver, sharer))
    rendered = messages[:-1] if form == "generation" else messages
    shared = shared_texts(rendered, rendered)
    columns = align_columns(receiver.tokenizer, mine, [SharerChat(sharer.tokenizer, theirs, shared, strategy)])
    return ChatAlignment(
        fill_padding(columns.receiver, pad_id(receiver.tokenizer)),
        fill_padding(columns.sharers[0], pad_id(sharer.tokenizer)),
        columns.is_message,
        [token is None for token in columns.receiver],
        [token is None for token in columns.sharers[0]],
        columns.sections,
    )


def fill_padding(tokens: PaddedTokens, padding: int) -> list[int]:
    """Token ids with the padding token in place of None.

    Example:
        >>> fill_padding([7, None], 0)
        [7, 0]
    """
    return [padding if token is None else token for token in tokens]


def _encode_form(tokenizer: ChatTokenizer, messages: Messages, form: Form) -> TokenizedChat:
    if form == "training":
        return tokenizer.encode([messages], False)[0]
    if form not in ("generation", "prefilled") or len(messages) < 2:
        raise AlignmentError(f"A conversation of {len(messages)} messages has no form {form!r}.")
    if form == "generation":
        return tokenizer.encode([messages[:-1]], True)[0]
    return tokenizer.encode_prefilled(messages)

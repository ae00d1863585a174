"""Which text both models read, when they may be told different things."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.alignment.chat_renderer import RenderedChat
from c2c_lightning.alignment.content_spans import Messages, MessageSpan
from c2c_lightning.alignment.span_alignment import SharedRun


@dataclass(frozen=True)
class SharedText:
    """A part of a message that both conversations have.

    Attributes:
        receiver_message: index of the message in the receiver's conversation.
        sharer_message: index of the message in the sharer's conversation.
        receiver_start: the part's first character in the receiver's content.
        sharer_start: the part's first character in the sharer's content.
        length: in characters.
    """

    receiver_message: int
    sharer_message: int
    receiver_start: int
    sharer_start: int
    length: int


def shared_texts(receiver: Messages, sharer: Messages) -> list[SharedText]:
    """The common end of two conversations, message by message from the last one back.

    Messages are shared while role and content are the same. Where a content ends with the other's whole content, that
    end is shared too (the sharer reads a document and the question, the receiver the question), and nothing before it.

    Args:
        receiver: what the receiver is told.
        sharer: what the sharer is told.

    Returns:
        The shared parts in the order of the conversations.
    """
    shared: list[SharedText] = []
    for back in range(1, min(len(receiver), len(sharer)) + 1):
        mine, theirs = receiver[-back], sharer[-back]
        if mine["role"] != theirs["role"]:
            break
        length = min(len(mine["content"]), len(theirs["content"]))
        if not (mine["content"].endswith(theirs["content"]) or theirs["content"].endswith(mine["content"])):
            break
        starts = len(mine["content"]) - length, len(theirs["content"]) - length
        shared.append(SharedText(len(receiver) - back, len(sharer) - back, *starts, length))
        if any(starts):
            break
    return shared[::-1]


def shared_runs(receiver: RenderedChat, sharer: RenderedChat, shared: Sequence[SharedText]) -> list[SharedRun]:
    """Shared texts in terms of the two rendered texts; what either template cut off is left out.

    Args:
        receiver: the receiver's rendered conversation.
        sharer: the sharer's.
        shared: what both conversations have.

    Returns:
        The runs in the receiver's order.
    """
    runs = []
    for part in shared:
        for mine in receiver.spans:
            for theirs in sharer.spans:
                if (mine.message, theirs.message) == (part.receiver_message, part.sharer_message):
                    runs.append(_overlap(mine, theirs, part))
    return sorted((run for run in runs if run.length > 0), key=lambda run: run.receiver_start)


def _overlap(mine: MessageSpan, theirs: MessageSpan, part: SharedText) -> SharedRun:
    """What both templates show of a shared part; its length is not positive if that is nothing."""
    # Where the shown runs begin, in characters of the shared part.
    my_start, their_start = mine.content_start - part.receiver_start, theirs.content_start - part.sharer_start
    first = max(0, my_start, their_start)
    last = min(part.length, my_start + mine.end - mine.start, their_start + theirs.end - theirs.start)
    return SharedRun(mine.start + first - my_start, theirs.start + first - their_start, last - first)


def content_ranges(chat: RenderedChat, parts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int] | None]:
    """Where parts of messages are in a rendered text.

    Args:
        chat: the rendered conversation.
        parts: `(message, first character of its content, length)` of each part.

    Returns:
        `(start, end)` in characters of the text, or None where the template shows nothing of the part.
    """
    spans = {span.message: span for span in chat.spans}
    ranges: list[tuple[int, int] | None] = []
    for message, start, length in parts:
        span = spans.get(message)
        if span is None:
            ranges.append(None)
            continue
        shift = span.start - span.content_start
        first, last = max(span.start, start + shift), min(span.end, start + length + shift)
        ranges.append((first, last) if first < last else None)
    return ranges

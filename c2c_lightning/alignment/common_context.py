"""The text that receiver and sharer have in common when their conversations differ (private context)."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.alignment.chat_renderer import RenderedChat
from c2c_lightning.alignment.content_spans import Messages, MessageSpan, content_text
from c2c_lightning.alignment.span_alignment import SharedRun


@dataclass(frozen=True)
class SharedText:
    """A part of a message in both conversations: indices of the message, first characters in its content, length."""

    receiver_message: int
    sharer_message: int
    receiver_start: int
    sharer_start: int
    length: int


def shared_texts(receiver: Messages, sharer: Messages) -> list[SharedText]:
    """The common suffix of two conversations, compared message by message from the last one back, in their order.

    Messages are shared while role and content are equal. Where one content is a suffix of the other, the suffix is
    shared and nothing before it (the sharer reads a document and the question, the receiver the question).

    Example:
        >>> question = {"role": "user", "content": "Who?"}
        >>> shared_texts([question], [{"role": "user", "content": "It was Ada. Who?"}])
        [SharedText(receiver_message=0, sharer_message=0, receiver_start=0, sharer_start=12, length=4)]
    """
    shared: list[SharedText] = []
    for back in range(1, min(len(receiver), len(sharer)) + 1):
        if receiver[-back]["role"] != sharer[-back]["role"]:
            break
        mine, theirs = content_text(receiver[-back]), content_text(sharer[-back])
        if not (mine.endswith(theirs) or theirs.endswith(mine)):
            break
        length = min(len(mine), len(theirs))
        starts = len(mine) - length, len(theirs) - length
        shared.append(SharedText(len(receiver) - back, len(sharer) - back, *starts, length))
        # The text before the common suffix differs, so nothing earlier is shared.
        if any(starts):
            break
    return shared[::-1]


def shared_runs(receiver: RenderedChat, sharer: RenderedChat, shared: Sequence[SharedText]) -> list[SharedRun]:
    """Shared texts as characters of the two rendered texts, in the receiver's order.

    Characters that either template removed are left out.
    """
    runs = []
    for part in shared:
        # All pairs: a template may write a message twice.
        for mine in receiver.spans:
            for theirs in sharer.spans:
                if (mine.message, theirs.message) == (part.receiver_message, part.sharer_message):
                    runs.append(_overlap(mine, theirs, part))
    return sorted((run for run in runs if run.length > 0), key=lambda run: run.receiver_start)


def _overlap(mine: MessageSpan, theirs: MessageSpan, part: SharedText) -> SharedRun:
    """The characters of a shared part that both templates render; the length is not positive if there are none."""
    # Where the rendered characters begin, counted from the first character of the shared part.
    my_start, their_start = mine.content_start - part.receiver_start, theirs.content_start - part.sharer_start
    first = max(0, my_start, their_start)
    last = min(part.length, my_start + mine.end - mine.start, their_start + theirs.end - theirs.start)
    return SharedRun(mine.start + first - my_start, theirs.start + first - their_start, last - first)


def content_ranges(chat: RenderedChat, parts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int] | None]:
    """Start and end of parts of messages in a rendered text, None where the template renders nothing of a part.

    A part is `(message, first character of its content, length)`.
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

"""Reading a rendered chat back: where its literal pieces end and the messages' contents begin."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# One message, `{"role", "content"}`; chat templates may know further keys.
Messages = Sequence[Mapping[str, Any]]

# Letters and digits only, so that no filter of a template changes a mark.
MARK = "qjzxCONTENT"
_MARK = re.compile(MARK + r"(\d+)xzjq")


@dataclass(frozen=True)
class MessageSpan:
    """A run of characters of a rendered chat that is (a part of) one message's content.

    Attributes:
        message: index of the message in the conversation.
        content_start: index of the run's first character in the message's content, in characters; more than 0 where
            the template cut the beginning off.
        start: first character in the rendered text.
        end: one past the last character in the rendered text.
    """

    message: int
    content_start: int
    start: int
    end: int


def with_marks(messages: Messages) -> list[Mapping[str, Any]]:
    """The messages with a mark in place of each content.

    Empty contents stay empty: templates often ask whether there is any.

    Args:
        messages: the conversation.

    Returns:
        The marked conversation.
    """
    return [{**m, "content": _mark(n)} if m["content"] else m for n, m in enumerate(messages)]


def with_marks_inside(messages: Messages) -> list[Mapping[str, Any]]:
    """The messages with a mark in the middle of each content that is not blank.

    Args:
        messages: the conversation.

    Returns:
        The marked conversation.
    """
    return [{**m, "content": _split(n, m["content"])} if m["content"].strip() else m for n, m in enumerate(messages)]


def _mark(number: int) -> str:
    return f"{MARK}{number}xzjq"


def _middle(content: str) -> int:
    """The middle of what a template shows at least: of the answer, where there is a thinking block before it."""
    front = _after_thinking(content)
    return front + (len(content) - front + 1) // 2


def _after_thinking(content: str) -> int:
    return content.rfind("</think>") + len("</think>") if "</think>" in content else 0


def _split(number: int, content: str) -> str:
    return content[: _middle(content)] + _mark(number) + content[_middle(content) :]


@dataclass(frozen=True)
class Pieces:
    """A rendered text cut at its marks: literal, message, literal, message, ..., literal.

    Attributes:
        literals: the text between marks, one more than there are marks.
        messages: index of the message of each mark.
    """

    literals: tuple[str, ...]
    messages: tuple[int, ...]


def cut_at_marks(text: str) -> Pieces:
    """Cut a rendered text at its marks.

    Args:
        text: a rendering of marked messages.

    Returns:
        Its pieces.
    """
    parts = _MARK.split(text)
    return Pieces(tuple(parts[::2]), tuple(int(number) for number in parts[1::2]))


def read(text: str, pieces: Pieces, contents: Sequence[str]) -> list[MessageSpan] | None:
    """Find the spans such that literals and contents (perhaps trimmed) use up the text exactly.

    Args:
        text: a rendered conversation.
        pieces: the literal pieces of the same conversation.
        contents: the content of each message.

    Returns:
        The spans in the order of the text, or None if the text cannot be read with these pieces.
    """
    literals, order = pieces.literals, pieces.messages
    if not text.startswith(literals[0]):
        return None
    path: list[tuple[MessageSpan, Iterator[tuple[int, str]]]] = []
    dead: set[tuple[int, int]] = set()
    position = len(literals[0])
    options = _trims(contents[order[0]]) if order else iter(())
    while True:
        if len(path) == len(order):
            if position == len(text):
                return [span for span, _ in path]
        else:
            step = _step(text, position, options, literals[len(path) + 1], order[len(path)])
            if step is not None and (len(path) + 1, step.end) not in dead:
                position = step.end + len(literals[len(path) + 1])
                path.append((step, options))
                options = _trims(contents[order[len(path)]]) if len(path) < len(order) else iter(())
                continue
            if step is not None:
                continue
        # Nothing fits from here: go back one message and try its next trim.
        if not path:
            return None
        dead.add((len(path), path[-1][0].end))
        span, options = path.pop()
        position = span.start


def _step(
    text: str, position: int, options: Iterator[tuple[int, str]], literal: str, message: int
) -> MessageSpan | None:
    """The next option that stands at this position with the literal after it."""
    for content_start, content in options:
        end = position + len(content)
        if text.startswith(content, position) and text.startswith(literal, end):
            return MessageSpan(message, content_start, position, end)
    return None


def _trims(content: str) -> Iterator[tuple[int, str]]:
    """What templates make of a content: all of it, or with white space or a thinking block cut off.

    Yields:
        `(characters cut off at the front, what is left)`.
    """
    yield 0, content
    for front in dict.fromkeys((0, _after_thinking(content))):
        rest = content[front:]
        for chars in (None, "\n"):
            left = rest.lstrip(chars)
            start = len(content) - len(left)
            yield start, left.rstrip(chars)
            yield start, left
            yield front, rest.rstrip(chars)


def grow(text: str, position: int, message: int, content: str) -> MessageSpan:
    """The run of a content around its middle, as far as a template may have left it.

    Args:
        text: a rendered conversation.
        position: where the middle of the content is in it, in characters.
        message: index of the message.
        content: its content.

    Returns:
        The run.
    """
    middle = _middle(content)
    low, high = middle, middle
    shift = position - middle
    while low > 0 and low + shift > 0 and text[low + shift - 1] == content[low - 1]:
        low -= 1
    while high < len(content) and high + shift < len(text) and text[high + shift] == content[high]:
        high += 1
    # What the template wrote next to the content may look like more of it; it cuts at certain places only.
    trims = [(start, start + len(rest)) for start, rest in _trims(content)]
    low = min((start for start, _ in trims if low <= start <= middle), default=low)
    high = max((end for _, end in trims if middle <= end <= high), default=high)
    return MessageSpan(message, low, low + shift, high + shift)

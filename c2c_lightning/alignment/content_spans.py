"""Finds the contents of messages in a rendered chat, given a rendering with placeholders in place of the contents."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Messages = Sequence[Mapping[str, Any]]
"""A conversation: mappings with `role`, `content` and further keys that a chat template may use."""

# Letters and digits only, so that no filter of a template changes a placeholder.
PLACEHOLDER = "qjzxCONTENT"
_PLACEHOLDER = re.compile(PLACEHOLDER + r"(\d+)xzjq")


@dataclass(frozen=True)
class MessageSpan:
    """Characters [start, end) of a rendered chat that are (a part of) the content of one message.

    They begin at the character `content_start` of the content: above 0 where the template removed the beginning.
    """

    message: int
    content_start: int
    start: int
    end: int


@dataclass(frozen=True)
class TemplatePieces:
    """A rendering cut at its placeholders: literal, message, literal, message, ..., literal."""

    literals: tuple[str, ...]
    messages: tuple[int, ...]


def content_text(message: Mapping[str, Any]) -> str:
    """The content of a message; empty where it is null or missing, as in a tool call."""
    return message.get("content") or ""


def with_placeholders(messages: Messages) -> list[Mapping[str, Any]]:
    """The messages with a placeholder in place of each content.

    Empty contents stay empty, because templates often test for them.
    """
    return [{**m, "content": _placeholder(n)} if content_text(m) else m for n, m in enumerate(messages)]


def with_placeholders_inside(messages: Messages) -> list[Mapping[str, Any]]:
    """The messages with a placeholder in the middle of each content that is not blank after its reasoning block."""
    return [
        {**m, "content": _insert_placeholder(n, content_text(m))} if _answer(m) else m for n, m in enumerate(messages)
    ]


def _placeholder(number: int) -> str:
    return f"{PLACEHOLDER}{number}xzjq"


def _middle(content: str) -> int:
    """The middle of the answer: templates may remove a reasoning block in front of it."""
    front = _after_reasoning(content)
    return front + (len(content) - front + 1) // 2


def _after_reasoning(content: str) -> int:
    return content.rfind("</think>") + len("</think>") if "</think>" in content else 0


def _answer(message: Mapping[str, Any]) -> str:
    content = content_text(message)
    return content[_after_reasoning(content) if message["role"] == "assistant" else 0 :].strip()


def _insert_placeholder(number: int, content: str) -> str:
    return content[: _middle(content)] + _placeholder(number) + content[_middle(content) :]


def split_at_placeholders(text: str) -> TemplatePieces:
    """Cut a rendering of messages with placeholders.

    Example:
        >>> split_at_placeholders("<user>qjzxCONTENT0xzjq</user>")
        TemplatePieces(literals=('<user>', '</user>'), messages=(0,))
    """
    parts = _PLACEHOLDER.split(text)
    return TemplatePieces(tuple(parts[::2]), tuple(int(number) for number in parts[1::2]))


def locate_contents(text: str, pieces: TemplatePieces, contents: Sequence[str]) -> list[MessageSpan] | None:
    """Find spans such that literals and contents (trimmed or not) make up the text exactly; None if they do not fit.

    Example:
        >>> locate_contents("<user>Hi</user>", TemplatePieces(("<user>", "</user>"), (0,)), [" Hi"])
        [MessageSpan(message=0, content_start=1, start=6, end=8)]
    """
    if not text.startswith(pieces.literals[0]):
        return None
    # Each position of the text that some way of trimming reaches, with the spans on the way there. The ways are in the
    # order of `_trimmed`, so that the untrimmed content wins.
    paths: dict[int, tuple[MessageSpan, ...]] = {len(pieces.literals[0]): ()}
    for message, literal in zip(pieces.messages, pieces.literals[1:], strict=True):
        following: dict[int, tuple[MessageSpan, ...]] = {}
        for position, path in paths.items():
            for content_start, content in _trimmed(contents[message]):
                end = position + len(content)
                if text.startswith(content, position) and text.startswith(literal, end):
                    span = MessageSpan(message, content_start, position, end)
                    following.setdefault(end + len(literal), (*path, span))
        paths = following
    found = paths.get(len(text))
    return None if found is None else list(found)


def _trimmed(content: str) -> Iterator[tuple[int, str]]:
    """Forms in which templates write a content, each with the number of characters removed at its front.

    All of it, or without white space or a reasoning block.
    """
    yield 0, content
    for front in dict.fromkeys((0, _after_reasoning(content))):
        rest = content[front:]
        # Templates use Jinja's `trim`, or `strip('\n')` as that of Qwen3.
        for chars in (None, "\n"):
            left = rest.lstrip(chars)
            start = len(content) - len(left)
            yield start, left.rstrip(chars)
            yield start, left
            yield front, rest.rstrip(chars)


def expand_from_middle(text: str, position: int, message: int, content: str) -> MessageSpan:
    """The span of a content around the known position of its middle in the text, as far as text and content agree."""
    middle = _middle(content)
    low, high = middle, middle
    shift = position - middle
    while low > 0 and low + shift > 0 and text[low + shift - 1] == content[low - 1]:
        low -= 1
    while high < len(content) and high + shift < len(text) and text[high + shift] == content[high]:
        high += 1
    # Template text next to the content may equal its continuation by chance; templates trim at certain points only.
    trims = [(start, start + len(rest)) for start, rest in _trimmed(content)]
    low = min((start for start, _ in trims if low <= start <= middle), default=low)
    high = max((end for _, end in trims if middle <= end <= high), default=high)
    return MessageSpan(message, low, low + shift, high + shift)

"""Span alignment: each model reads its own tokens; a receiver token takes the sharer token that ends where it ends.

All is done in characters, so no token has to be decoded. A token that holds a part of a character (byte-level
vocabularies cut emoji and CJK) counts as holding the whole character, so every piece of it reads the sharer token
that completes the character.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class SharedRun:
    """Text that both models read.

    Attributes:
        receiver_start: its first character in the receiver's rendered text.
        sharer_start: its first character in the sharer's rendered text.
        length: in characters.
    """

    receiver_start: int
    sharer_start: int
    length: int


def close_gaps(offsets: Offsets) -> list[tuple[int, int]]:
    """Give characters that no token claims to the token after them.

    Tokenizers with trimmed offsets leave out the white space that a token begins with.

    Args:
        offsets: `(start, end)` of each token, in characters of the text.

    Returns:
        The same, with starts and ends that never go back and no gaps.
    """
    closed: list[tuple[int, int]] = []
    first = last = 0
    for start, end in offsets:
        if end <= start <= last:  # a token without characters
            closed.append((last, last))
            continue
        first, last = max(first, min(start, last)), max(end, last)
        closed.append((first, last))
    return closed


def align_spans(receiver: Offsets, sharer: Offsets, runs: Sequence[SharedRun]) -> list[int]:
    """The sharer position that each receiver token reads.

    Args:
        receiver: `(start, end)` of each receiver token in the receiver's text, in characters, without gaps.
        sharer: the same for the sharer.
        runs: the text that both read, in the receiver's order.

    Returns:
        For each receiver token the last sharer token that overlaps its shared characters, -1 for tokens outside of
        shared text. It never goes back inside a run.
    """
    index = [-1] * len(receiver)
    receiver_ends = [end for _, end in receiver]
    sharer_starts = [start for start, _ in sharer]
    for run in runs:
        shift = run.sharer_start - run.receiver_start
        stop = run.receiver_start + run.length
        # First token that reaches into the run.
        token = bisect_right(receiver_ends, run.receiver_start)
        while token < len(receiver) and receiver[token][0] < stop:
            first, last = max(receiver[token][0], run.receiver_start), min(receiver[token][1], stop)
            if first < last:
                index[token] = _last_overlap(sharer, sharer_starts, first + shift, last + shift)
            token += 1
    return index


def _last_overlap(offsets: Offsets, starts: Sequence[int], first: int, last: int) -> int:
    """The last token with a character in [first, last), -1 if there is none."""
    token = bisect_left(starts, last) - 1
    while token >= 0 and offsets[token][0] == offsets[token][1]:
        token -= 1
    return token if token >= 0 and offsets[token][1] > first else -1

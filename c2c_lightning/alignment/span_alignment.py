"""Span alignment: each model keeps its tokens; a receiver token is fused with the sharer token at its last character.

Works on character offsets, so no token has to be decoded. A token with a part of a character (byte-level vocabularies
split emoji and CJK) counts as having the whole character, so each of its pieces is fused with the sharer token that
completes the character.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class SharedRun:
    """Characters that occur in both rendered texts: the first in each, and their number."""

    receiver_start: int
    sharer_start: int
    length: int


def close_gaps(offsets: Offsets) -> list[tuple[int, int]]:
    """Assign characters that belong to no token to the token after them.

    Tokenizers with trimmed offsets leave out leading white space.

    Example:
        >>> close_gaps([(0, 2), (3, 5)])
        [(0, 2), (2, 5)]
    """
    closed: list[tuple[int, int]] = []
    first = last = 0
    for start, end in offsets:
        if end <= start <= last:  # a token without characters
            closed.append((last, last))
            continue
        # Pieces of one character (byte-level vocabularies) have equal offsets, so starts are not moved behind ends.
        first, last = max(first, min(start, last)), max(end, last)
        closed.append((first, last))
    return closed


def align_spans(receiver: Offsets, sharer: Offsets, runs: Sequence[SharedRun]) -> list[int]:
    """The sharer position of each receiver token: the last sharer token that overlaps its shared characters, or -1.

    Offsets are characters of each model's text, without gaps; runs are in the receiver's order. Positions never
    decrease within a run.

    Example:
        Receiver tokens `un|fair`, sharer tokens `unf|air`:

        >>> align_spans([(0, 2), (2, 6)], [(0, 3), (3, 6)], [SharedRun(0, 0, 6)])
        [0, 1]
    """
    index = [-1] * len(receiver)
    receiver_ends = [end for _, end in receiver]
    sharer_starts = [start for start, _ in sharer]
    for run in runs:
        shift = run.sharer_start - run.receiver_start
        stop = run.receiver_start + run.length
        token = bisect_right(receiver_ends, run.receiver_start)  # the first token with characters of the run
        while token < len(receiver) and receiver[token][0] < stop:
            first, last = max(receiver[token][0], run.receiver_start), min(receiver[token][1], stop)
            if first < last:
                index[token] = _last_overlap(sharer, sharer_starts, first + shift, last + shift)
            token += 1
    return index


def _last_overlap(offsets: Offsets, starts: Sequence[int], first: int, last: int) -> int:
    """The last token with a character in [first, last), -1 if there is none."""
    # Tokens without characters are skipped: they have nothing of the text.
    token = bisect_left(starts, last) - 1
    while token >= 0 and offsets[token][0] == offsets[token][1]:
        token -= 1
    return token if token >= 0 and offsets[token][1] > first else -1

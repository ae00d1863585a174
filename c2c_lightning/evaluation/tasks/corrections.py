"""Corrected answers of MMLU-Redux, which annotators wrote as text: "2", "C", "(c) Paris", "Paris", "A and C"."""

import re
from collections.abc import Sequence
from typing import Any

#: A letter or number alone, or in front of the choice's text.
_LABEL = re.compile(
    r"(?:the\s+)?(?:correct\s+)?(?:answers?|options?|choices?)?\s*(?:is|are|:)?\s*\(?([a-z]|\d+)\)?(?:[.):]+\s*(.*))?",
    re.IGNORECASE | re.DOTALL,
)
_SEPARATOR = re.compile(r"\s*(?:[,;/&]|\band\b|\bor\b)\s*", re.IGNORECASE)


def parse_correction(correction: Any, choices: Sequence[str]) -> tuple[int, ...]:
    """Indices of the choices that a correction names, by index from 0, letter or text; empty if any part names none."""
    if correction is None or isinstance(correction, bool):
        return ()
    text = str(correction).strip()
    # The whole first: a choice's text may contain a separator.
    if (whole := _one(text, choices)) is not None:
        return (whole,)
    parts = [_one(part, choices) for part in _SEPARATOR.split(text) if part]
    indices = [index for index in parts if index is not None]
    return tuple(dict.fromkeys(indices)) if len(indices) == len(parts) else ()


def _one(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a text names, None where it names none."""
    plain = [_plain(choice) for choice in choices]
    if plain.count(_plain(text)) == 1 and not re.fullmatch(r"\s*\d+\s*", text):
        return plain.index(_plain(text))
    match = _LABEL.fullmatch(text.strip(" ."))
    if match is None:
        return None
    label, rest = match.groups()
    index = int(label) if label.isdecimal() else ord(label.upper()) - ord("A")
    if not 0 <= index < len(choices):
        return plain.index(_plain(text)) if plain.count(_plain(text)) == 1 else None
    # "b. Paris" must agree with the text of the choice.
    return index if not rest or _plain(rest) == plain[index] else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;\"'")

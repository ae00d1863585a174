"""Extraction of an answer from a reply. Pure functions: text in, choice out."""

import re
from collections.abc import Sequence
from typing import Literal

ExtractionRule = Literal["anchored", "released", "choice_text", "first_line"]

#: Cues of the released code, in its order, without entries that differ only in case (it ignores case).
_RELEASED_CUES = (
    "answer:",
    "your answer:",
    "the answer is",
    "correct answer is",
    "correct answer is:",
    "correct answer:",
    "jibu lako:",
    "jibu:",
    "jibu sahihi:",
    "response:",
    "choice:",
    "option:",
)
_RELEASED_STANDALONE = (
    re.compile(r"\b([A-D])\s*[.,!?:)]?\s*$", re.IGNORECASE),
    re.compile(r"\b([A-D])\s*[.,!?:)]\s", re.IGNORECASE),
    re.compile(r"\b([A-D])\b", re.IGNORECASE),
)
_MATHS_SIGNS = ("+", "-", "*", "/", "=", "^", "mod", "sqrt", "sin", "cos", "tan")
_ANSWER_WORDS = ("jibu", "answer", "choice", "option", "response", "correct", "sahihi")


def released_letter(reply: str) -> str | None:
    """The letter A to D that the released code extracts from a reply.

    In this order: the first capital A-D on the line after a cue such as "Answer:"; a lone letter at the end; the last
    lone letter (except in maths without an answer word); the last capital A-D anywhere.
    The last step makes "I DON'T KNOW" score as D; `anchored_choice` is the default here for that reason.
    """
    reply = reply.strip()
    for cue in _RELEASED_CUES:
        match = re.search(re.escape(cue) + r"\s*(.*)", reply, re.IGNORECASE)
        found = re.search("[A-D]", match[1]) if match else None
        if found:
            return found[0]
    lone_letters = [letters for pattern in _RELEASED_STANDALONE if (letters := pattern.findall(reply))]
    if lone_letters:
        return None if _looks_like_maths(reply) else str(lone_letters[0][-1]).upper()
    capitals = re.findall("[A-D]", reply)
    return capitals[-1] if capitals else None


def _looks_like_maths(reply: str) -> bool:
    lowered = reply.lower()
    return any(sign in reply for sign in _MATHS_SIGNS) and not any(word in lowered for word in _ANSWER_WORDS)


#: Typographic quotes and dashes as their plain counterparts.
_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")
#: Allowed in front of a letter: quotes, brackets, Markdown, \boxed{...}, \text{...}.
_OPEN = r"(?:[\s\"'(\[{*_`$]|\\boxed|\\text|\\mathbf)*"
_CUE = re.compile(
    r"\b(?:answer|option|choice|response)s?\b[\"'*_)\]]*\s*(?:would be|should be|must be|is|=|:)\s*"
    r"(?:(?:option|choice|letter|answer)\b\s*)?:?\s*" + _OPEN + r"(?=(.*))",
    re.IGNORECASE,
)
#: A letter alone: not in a word, not in a list of letters ("A/B/C/D", "A and B").
_LETTER = r"([A-Z])(?![A-Za-z0-9/-]|'\w)(?!\s*(?:,|and|or|&)\s*\(?[A-Z]\b)"
_LETTER_FIRST = re.compile(_LETTER)
_CHOSEN_OPTION = re.compile(r"\b(?i:option|choice|choose|select|pick)\b\s*" + _OPEN + _LETTER)
_LEADING_LETTER = re.compile(r"^" + _OPEN + r"([A-Z])(?:\s*[.:)\]}*`\"'](?!\w)|\s+-\s|\s*$)", re.MULTILINE)


def anchored_choice(reply: str, choices: Sequence[str]) -> int | None:
    """The choice that a reply states explicitly; None where it states none.

    In this order: the first "answer is ..." (or option, choice, response; "is" or ":") followed by the text of a choice
    or by a letter; "option X"; a letter the reply begins with ("B", "(B) Paris", "**B**"), unless it goes on to list
    the others; a reply that is the text of a choice. A letter must be a word of its own and among the choices.
    """
    reply = reply.translate(_PLAIN).strip()
    for cue in _CUE.finditer(reply):
        if (index := _stated(cue[1], choices)) is not None:
            return index
    for match in _CHOSEN_OPTION.finditer(reply):
        if (index := _index(match[1], len(choices))) is not None:
            return index
    index = _leading_letter(reply, len(choices))
    return choice_text(reply, choices) if index is None else index


def _stated(rest: str, choices: Sequence[str]) -> int | None:
    """The choice at the start of the text after a cue."""
    # Texts first: "A cat" names the choice "a cat", not the letter A.
    if (index := _text_first(rest, choices)) is not None:
        return index
    match = _LETTER_FIRST.match(rest)
    return _index(match[1], len(choices)) if match else None


def _leading_letter(reply: str, num_choices: int) -> int | None:
    """The letter that a reply begins with; None where later lines begin with other ones (a copy of the choices)."""
    lines = [match for match in _LEADING_LETTER.finditer(reply) if _index(match[1], num_choices) is not None]
    if not lines or lines[0].start() > 0 or len({match[1] for match in lines}) > 1:
        return None
    return _index(lines[0][1], num_choices)


def _index(letter: str, num_choices: int) -> int | None:
    index = ord(letter) - ord("A")
    return index if index < num_choices else None


def choice_text(reply: str, choices: Sequence[str]) -> int | None:
    """The choice whose text, and no other's, is the whole reply, up to case, spaces and punctuation at the ends."""
    normalised = normalise(reply)
    same = [index for index, choice in enumerate(choices) if normalise(choice) == normalised]
    return same[0] if len(same) == 1 and normalised else None


def first_line_choice(reply: str, choices: Sequence[str]) -> int | None:
    """The choice whose text is the first line of a reply, or its first sentence.

    For base models, which continue after their answer.
    """
    return _text_first(reply.strip().partition("\n")[0], choices)


def _text_first(text: str, choices: Sequence[str]) -> int | None:
    """The choice whose text is the whole text or its first sentence."""
    index = choice_text(text, choices)
    return choice_text(re.split(r"(?<=[.!?;])\s", text, maxsplit=1)[0], choices) if index is None else index


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation or quotes at the ends (a sign or currency in front is kept)."""
    text = " ".join(text.translate(_PLAIN).casefold().split())
    return text.strip("\"'`*_ ").rstrip(".,;:!?\"'`*_ ")


def extract_choice(reply: str, choices: Sequence[str], rule: ExtractionRule = "anchored") -> int | None:
    """The choice in a reply by a rule (`released`: the paper's published code), None where it finds none."""
    if rule == "released":
        found = released_letter(reply)
        return None if found is None else _index(found, len(choices))
    rules = {"anchored": anchored_choice, "choice_text": choice_text, "first_line": first_line_choice}
    return rules[rule](reply, choices)

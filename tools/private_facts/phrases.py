"""Values of several tokens, composed by rule: numbers, dates, times, full names, and short phrases of open words."""

import calendar
import random
from collections.abc import Callable, Mapping, Sequence

_MONTHS = calendar.month_name[1:]
_ADJECTIVES = [
    "old",
    "new",
    "small",
    "large",
    "red",
    "blue",
    "green",
    "white",
    "black",
    "broken",
    "wooden",
    "golden",
    "heavy",
    "empty",
    "secret",
]
_PREPOSITIONS = ["in", "on", "under", "behind", "near", "above", "inside", "below"]
_COUNTS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty"]

_THINGS = [
    "a {adjective} {word}",
    "the {adjective} {word}",
    "the {word} of {title}",
    "a box of {word}",
    "{count} {adjective} {word}",
    "{count} {word}",
    "{word} and {word}",
    "{adjective} {word}",
    "a letter from {title}",
    "the {title} {word}",
]
_PLACES = [
    "{preposition} the {word}",
    "{preposition} the {adjective} {word}",
    "{preposition} a {adjective} {word}",
    "{preposition} the {word} of {title}",
    "in {title}",
]

NewWord = Callable[[str], str]
"""A new word of an open type."""


def _figure(generator: random.Random) -> str:
    length = generator.randint(1, 6)
    number = generator.randint(10 ** (length - 1), 10**length - 1)
    return f"{number:,}" if generator.random() < 0.3 else str(number)


def _amount(generator: random.Random) -> str:
    return generator.choice(["{}", "{} euros", "${}", "{} dollars", "{} percent"]).format(_figure(generator))


def _code(generator: random.Random) -> str:
    letters = "".join(generator.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=generator.randint(1, 3)))
    return generator.choice(["{}-{}", "{}{}", "{} {}"]).format(letters, generator.randint(1, 9999))


def _year(generator: random.Random) -> str:
    return str(generator.randint(1600, 2049))


def _date(generator: random.Random) -> str:
    day, month = generator.randint(1, 28), generator.choice(_MONTHS)
    written = generator.choice(["{0} {1}", "{1} {0}", "{0} {1} {2}", "{1} {0}, {2}", "{1} {2}"])
    return written.format(day, month, _year(generator))


def _clock_time(generator: random.Random) -> str:
    hour, minute = generator.randint(1, 12), generator.randint(0, 59)
    return generator.choice(["{0}:{1:02}", "{0}:{1:02} {2}", "{0} {2}"]).format(
        hour, minute, generator.choice(["am", "pm"])
    )


_RULES: Mapping[str, Callable[[random.Random], str]] = {
    "figure": _figure,
    "amount": _amount,
    "code": _code,
    "year": _year,
    "date": _date,
    "clock_time": _clock_time,
}
_PATTERNS: Mapping[str, Sequence[str]] = {"thing": _THINGS, "place": _PLACES}

PHRASE_TYPES = (*_RULES, *_PATTERNS, "full_name")
"""Types of the values. Numbers, dates and times are drawn for each row; words and names are those of the vocabulary."""


def phrase(kind: str, generator: random.Random, names: Sequence[str], new_word: NewWord) -> str:
    """A value of one of `PHRASE_TYPES`.

    Args:
        kind: the type.
        generator: source of randomness.
        names: the full names.
        new_word: gives a word of the open types.
    """
    if kind == "full_name":
        return generator.choice(names)
    if kind in _RULES:
        return _RULES[kind](generator)
    pattern = generator.choice(_PATTERNS[kind])
    while "{word}" in pattern:
        pattern = pattern.replace("{word}", new_word("word"), 1)
    return pattern.format(
        title=new_word("title"),
        adjective=generator.choice(_ADJECTIVES),
        count=generator.choice(_COUNTS),
        preposition=generator.choice(_PREPOSITIONS),
    )

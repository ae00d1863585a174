"""Names and values, with a part of each type held out."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import yaml

from tools.private_facts.token_words import PIECES

FOLDER = Path(__file__).parent
#: No question is asked about types with fewer values: mismatched documents would often have the right one.
FEWEST_VALUES = 8
#: Part of each type that is in no training row, and the fewest words: a document may have three values of a type.
_HELD_OUT, _FEWEST = 0.2, 3


@dataclass(frozen=True)
class Words:
    """The words of one type.

    Attributes:
        known: those of training rows.
        held_out: those of held-out rows only.
    """

    known: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, is_new: bool) -> tuple[str, ...]:
        """The held-out words, or those of training."""
        return self.held_out if is_new else self.known


@dataclass(frozen=True)
class Vocabulary:
    """All names and values by type."""

    names: dict[str, Words]
    values: dict[str, Words]

    def in_pieces(self, kind: str) -> str | None:
        """The type of the words of a type that some tokenizer writes in pieces; None without such words."""
        pieces = PIECES.format(kind)
        words = self.values.get(pieces, Words((), ()))
        return pieces if min(len(words.known), len(words.held_out)) >= FEWEST_VALUES else None

    @classmethod
    def load(cls, seed: int, open_values: Mapping[str, Sequence[str]] | None = None) -> "Vocabulary":
        """The words of `words.yaml`, divided by a seed; a value of two types is held out of both or of none.

        Args:
            seed: which words are held out.
            open_values: values of further types, see `token_words`.
        """
        words = yaml.safe_load((FOLDER / "words.yaml").read_text(encoding="utf-8"))
        generator = random.Random(seed)
        names = {kind: _names(entry, generator) for kind, entry in words["names"].items()}
        values = {kind: _whole(entry) for kind, entry in words["values"].items()}
        values |= {kind: tuple(entry) for kind, entry in (open_values or {}).items()}
        draws = {value: generator.random() for value in dict.fromkeys(chain.from_iterable(values.values()))}
        return cls(names, {kind: _divided(entry, draws) for kind, entry in values.items()})


def _names(entry: dict[str, Any], generator: random.Random) -> Words:
    """Composed names. A held-out name has no part in common with a name of training."""
    divided = [_divided(parts, {part: generator.random() for part in parts}) for parts in entry["parts"]]
    known, held_out = (_composed(entry["join"], [part.of(is_new) for part in divided]) for is_new in (False, True))
    return Words(known, held_out)


def _whole(entry: Any) -> tuple[str, ...]:
    return tuple(entry) if isinstance(entry, list) else _composed(entry["join"], entry["parts"])


def _composed(join: str, parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(join.format(*chosen) for chosen in product(*parts))


def _divided(words: Sequence[str], draws: Mapping[str, float]) -> Words:
    """Held out are words with a low draw."""
    ranked = sorted(words, key=draws.__getitem__)
    count = max(_FEWEST, sum(draws[word] < _HELD_OUT for word in words))
    return Words(tuple(ranked[count:]), tuple(ranked[:count]))

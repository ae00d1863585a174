"""The synthetic world: entities, relations, values and facts, as a pure function of a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "heldout"]
Half = Literal["first", "second"]
Third = Literal["first", "second", "last"]

VALUES: dict[str, tuple[str, ...]] = {
    "capital": ("Arden", "Borin", "Calmo", "Derna", "Elvas", "Fargo", "Gento", "Havel"),
    "colour": ("red", "blue", "green", "white", "black", "pink", "gold", "grey"),
    "food": ("rice", "bean", "plum", "corn", "fish", "soup", "bread", "pear"),
    "animal": ("wolf", "bear", "crow", "deer", "goat", "seal", "toad", "lynx"),
}
"""The closed vocabulary of each relation: eight words, none shared, so that chance is 1 / 8."""

SPLIT_SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.1, "heldout": 0.3}
"""Fractions of the entities for training a fuser, for validation, and held out from both."""

THIRDS: tuple[Third, ...] = ("first", "second", "last")
"""Thirds of the entities: each of the three peers knows one."""

ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "h", "k", "kr", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
"""Onsets of the syllables of a name."""

_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "", "l", "m", "n", "r", "s")


@dataclass(frozen=True)
class Fact:
    """One fact, with the split and the half of the world that its entity belongs to."""

    entity: str
    relation: str
    value: str
    split: Split
    half: Half

    @property
    def question(self) -> str:
        """The user's message that asks for the value."""
        return question(self.entity, self.relation)

    @property
    def answer(self) -> str:
        """The assistant's short reply."""
        return answer(self.value)

    @property
    def statement(self) -> str:
        """The fact as a sentence."""
        return statement(self.entity, self.relation, self.value)


@dataclass(frozen=True)
class World:
    """All facts of one seed."""

    seed: int
    facts: tuple[Fact, ...]

    @property
    def entities(self) -> frozenset[str]:
        """Names of all entities."""
        return frozenset(fact.entity for fact in self.facts)

    def split(self, name: Split) -> tuple[Fact, ...]:
        """Facts of one split, entity by entity."""
        return tuple(fact for fact in self.facts if fact.split == name)

    def half(self, name: Half) -> tuple[Fact, ...]:
        """Facts of one half of the entities, over all splits."""
        return tuple(fact for fact in self.facts if fact.half == name)

    def third(self, name: Third) -> tuple[Fact, ...]:
        """Facts of one third of the entities of each split."""
        part = THIRDS.index(name)
        splits = [self.split(split) for split in SPLIT_SHARES]
        bounds = [(facts, [_num_facts(len(facts), (part + n) / 3) for n in (0, 1)]) for facts in splits]
        return tuple(fact for facts, (start, stop) in bounds for fact in facts[start:stop])

    def first(self, fraction: float) -> tuple[Fact, ...]:
        """Facts of the first entities of each split; a fraction of 0.5 gives the first half."""
        splits = [self.split(name) for name in SPLIT_SHARES]
        # Entity by entity: all four relations of an entity are known, or none.
        return tuple(fact for facts in splits for fact in facts[: _num_facts(len(facts), fraction)])


def make_world(seed: int = 0, num_entities: int = 400) -> World:
    """Build the world of a seed.

    Values are balanced within each split, and up to one within each half of a split.

    Args:
        seed: chooses names and facts.
        num_entities: number of entities; each has one value for each of the four relations.
    """
    rng = random.Random(f"world {seed}")
    names: list[str] = []
    while len(names) < num_entities:
        name = random_name(rng)
        if name not in names:
            names.append(name)
    facts: list[Fact] = []
    start = 0
    for split, stop in _split_ends(num_entities).items():
        facts.extend(_split_facts(names[start:stop], split, rng))
        start = stop
    return World(seed, tuple(facts))


def random_name(rng: random.Random, onsets: Sequence[str] = ONSETS) -> str:
    """A random name of two or three syllables, such as `Velmora`."""
    syllables = [rng.choice(onsets) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 3, 3)))]
    return ("".join(syllables) + rng.choice(_CODAS)).capitalize()


def question(entity: str, relation: str) -> str:
    """The question for a value."""
    return f"What is the {relation} of {entity}?"


def sentence_request(entity: str, relation: str) -> str:
    """Ask for a value in a whole sentence, as text-to-text communication asks the sharer."""
    return f"In one sentence: {question(entity, relation)}"


def answer(value: str) -> str:
    """The reply with the value alone."""
    return f"{value}."


def statement(entity: str, relation: str, value: str) -> str:
    """A fact as a sentence."""
    return f"The {relation} of {entity} is {value}."


def _num_facts(of_split: int, fraction: float) -> int:
    return round(of_split // len(VALUES) * fraction) * len(VALUES)


def _split_ends(num_entities: int) -> dict[Split, int]:
    ends: dict[Split, int] = {}
    total = 0.0
    for split, share in SPLIT_SHARES.items():
        total += share
        ends[split] = round(total * num_entities)
    return ends


def _split_facts(names: Sequence[str], split: Split, rng: random.Random) -> list[Fact]:
    middle = len(names) // 2
    values_of: dict[str, list[str]] = {}
    for relation, vocabulary in VALUES.items():
        tiled = [vocabulary[index % len(vocabulary)] for index in range(len(names))]
        first, second = tiled[:middle], tiled[middle:]
        rng.shuffle(first)
        rng.shuffle(second)
        values_of[relation] = first + second
    return [
        Fact(name, relation, values_of[relation][index], split, "first" if index < middle else "second")
        for index, name in enumerate(names)
        for relation in VALUES
    ]

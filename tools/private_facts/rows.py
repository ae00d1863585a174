"""Rows: a document of a few facts, a question about one of them, its answer and four wrong choices."""

import random
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import yaml

from tools.private_facts.token_words import OPEN_TYPES
from tools.private_facts.vocabulary import FOLDER, Vocabulary

#: No question is asked about types with fewer values: mismatched documents would often have the right one.
_FEWEST_VALUES = 8
_CHOICES = 5
#: Probabilities of the numbers of facts in a document.
_FACTS = {2: 0.3, 3: 0.4, 4: 0.3}
#: Probability that a question asks for a value of the open vocabulary, if there is one.
_OPEN = 0.5


@dataclass(frozen=True)
class Relation:
    """A relation between a name and a value.

    Attributes:
        of: type of the name.
        value: type of the value.
        statements: sentences with `{name}` and `{value}`.
        questions: questions with `{name}`.
        held_out: whether training rows hold no fact of the relation.
    """

    name: str
    of: str
    value: str
    statements: list[str]
    questions: list[str]
    held_out: bool = False


@dataclass(frozen=True)
class Novelty:
    """What training rows do not have.

    Attributes:
        names, values, relations: whether those of the asked fact are in no training row.
        same_relation: whether each document states the asked relation of another name too.
    """

    names: bool = False
    values: bool = False
    relations: bool = False
    same_relation: bool = False


@dataclass(frozen=True)
class Fact:
    """A fact of a document."""

    relation: Relation
    name: str
    value: str

    def sentence(self, generator: random.Random) -> str:
        """The fact in one of its wordings."""
        return _with_articles(generator.choice(self.relation.statements).format(name=self.name, value=self.value))


def load_relations(types: Collection[str]) -> list[Relation]:
    """The relations of `relations.yaml` with a value of one of some types."""
    entries = yaml.safe_load((FOLDER / "relations.yaml").read_text(encoding="utf-8"))
    return [Relation(name, **entry) for name, entry in entries.items() if entry["value"] in types]


class RowMaker:
    """Makes rows of one kind of novelty.

    Args:
        vocabulary: names and values.
        relations: all relations.
        novelty: the parts of a row that are held out.
        generator: source of randomness.
    """

    def __init__(
        self, vocabulary: Vocabulary, relations: list[Relation], novelty: Novelty, generator: random.Random
    ) -> None:
        self.vocabulary, self.novelty, self.generator = vocabulary, novelty, generator
        self.known = [relation for relation in relations if not relation.held_out]
        self.asked = [
            relation
            for relation in relations
            if relation.held_out == novelty.relations
            and len(vocabulary.values[relation.value].of(novelty.values)) >= _FEWEST_VALUES
        ]
        self.open = [relation for relation in self.asked if relation.value in OPEN_TYPES]
        self.typed = [relation for relation in self.asked if relation.value not in OPEN_TYPES]

    def row(self) -> dict[str, Any]:
        """A row: `relation`, `document`, `question`, `answer` and `choices`."""
        is_open = self.open and self.generator.random() < _OPEN
        relation = self.generator.choice(self.open if is_open else self.typed)
        facts = self._facts(relation)
        answer = facts[0].value
        question = _with_articles(self.generator.choice(relation.questions).format(name=facts[0].name))
        choices = self._choices(facts)
        sentences = [fact.sentence(self.generator) for fact in self.generator.sample(facts, len(facts))]
        document = " ".join(sentences)
        parts = {"relation": relation.name, "document": document, "question": question}
        return {**parts, "answer": answer, "choices": choices}

    def _facts(self, relation: Relation) -> list[Fact]:
        """The asked fact, then distractors: other relations of the same name and of another one."""
        name, other = self._two_names(relation.of)
        others = [known for known in self.known if known.of == relation.of and known != relation]
        first, (second, third) = self.generator.choice(others), self.generator.sample(others, 2)
        (count,) = self.generator.choices(list(_FACTS), list(_FACTS.values()))
        if self.novelty.same_relation:
            distractors = [(relation, other), *self.generator.sample([(first, name), (second, other)], count - 2)]
        else:
            distractors = self.generator.sample([(first, name), (second, other), (third, other)], count - 1)
        facts: list[Fact] = []
        for known, owner in [(relation, name), *distractors]:
            facts.append(Fact(known, owner, self._value(known.value, {fact.value for fact in facts})))
        return facts

    def _two_names(self, kind: str) -> tuple[str, str]:
        """Two names whose first words and last words differ."""
        names = self.vocabulary.names[kind].of(self.novelty.names)
        while True:
            name, other = self.generator.sample(names, 2)
            pairs = zip(name.split(), other.split(), strict=True)
            if all(mine != theirs for mine, theirs in pairs):
                return name, other

    def _value(self, kind: str, taken: set[str]) -> str:
        while (value := self.generator.choice(self.vocabulary.values[kind].of(self.novelty.values))) in taken:
            pass
        return value

    def _choices(self, facts: list[Fact]) -> list[str]:
        """The answer, the other values of the document, and values of its type; in random order."""
        choices = [fact.value for fact in facts]
        while len(choices) < _CHOICES:
            choices.append(self._value(facts[0].relation.value, set(choices)))
        return self.generator.sample(choices, len(choices))


def _with_articles(sentence: str) -> str:
    """`a` before a vowel becomes `an`."""
    return re.sub(r"\b([Aa]) (?=[aeio]|u(?!k|n[ai]))", r"\1n ", sentence)

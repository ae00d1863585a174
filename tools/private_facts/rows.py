"""Rows: a document of a few facts, a question about one of them, its answer and four wrong choices."""

import random
import re
from copy import copy
from dataclasses import dataclass
from typing import Any

import yaml

from tools.private_facts.phrases import PHRASE_TYPES, phrase
from tools.private_facts.token_words import OPEN_TYPES
from tools.private_facts.vocabulary import FEWEST_VALUES, FOLDER, Vocabulary

_CHOICES = 5
#: Probabilities of the numbers of facts in a document.
_FACTS = {2: 0.3, 3: 0.4, 4: 0.3}
#: Type of values that are several words of the open vocabulary, and their least and greatest number.
_LIST, _WORDS = "list", (16, 24)
#: Types that no distractor has and that need an open vocabulary.
_COMPOSED = (_LIST, *PHRASE_TYPES)


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
class Selection:
    """Which rows a file has.

    Attributes:
        new_names, new_values, new_relations: whether those of the asked fact are in no training row.
        same_relation: whether each document states the asked relation of another name too.
        list_share: part of the questions that ask for a list of words, if there is an open vocabulary.
        phrase_share: part of the other questions that ask for a number, a date, a full name or a phrase, and part of
            the words of lists that are such values, if there is an open vocabulary.
        open_share: part of the further questions that ask for a word of the open vocabulary, if there is one.
        piece_share: part of these words, and of those of lists, that are several tokens of some tokenizer.
    """

    new_names: bool = False
    new_values: bool = False
    new_relations: bool = False
    same_relation: bool = False
    list_share: float = 0.0
    phrase_share: float = 0.0
    open_share: float = 0.5
    piece_share: float = 0.0


@dataclass(frozen=True)
class Fact:
    """A fact of a document."""

    relation: Relation
    name: str
    value: str

    def sentence(self, generator: random.Random) -> str:
        """The fact in one of its wordings."""
        return _with_articles(generator.choice(self.relation.statements).format(name=self.name, value=self.value))


def load_relations(vocabulary: Vocabulary) -> list[Relation]:
    """The relations of `relations.yaml` for whose values a vocabulary has words."""
    entries = yaml.safe_load((FOLDER / "relations.yaml").read_text(encoding="utf-8"))
    types = {*vocabulary.values, *(_COMPOSED if vocabulary.values.keys() >= set(OPEN_TYPES) else [])}
    return [Relation(name, **entry) for name, entry in entries.items() if entry["value"] in types]


class RowMaker:
    """Makes the rows of one file.

    Args:
        vocabulary: names and values.
        selection: which rows.
        generator: source of randomness.
    """

    def __init__(self, vocabulary: Vocabulary, selection: Selection, generator: random.Random) -> None:
        self.vocabulary, self.selection, self.generator = vocabulary, selection, generator
        relations = load_relations(vocabulary)
        self.known = [known for known in relations if not known.held_out and known.value not in _COMPOSED]
        asked = [known for known in relations if known.held_out == selection.new_relations and self._has_values(known)]
        self.lists = [known for known in asked if known.value == _LIST]
        self.phrases = [known for known in asked if known.value in PHRASE_TYPES]
        self.open = [known for known in asked if known.value in OPEN_TYPES]
        self.pieces = {kind: pieces for kind in OPEN_TYPES if (pieces := vocabulary.in_pieces(kind))}
        self.closed = [known for known in asked if known.value not in (*_COMPOSED, *OPEN_TYPES)]

    def _has_values(self, relation: Relation) -> bool:
        values = self.vocabulary.values.get(relation.value)
        return values is None or len(values.of(self.selection.new_values)) >= FEWEST_VALUES

    def row(self) -> dict[str, Any]:
        """A row: `relation`, `document`, `question`, `answer` and `choices`."""
        relation = self.generator.choice(self._question_type())
        facts = self._facts(relation)
        answer = facts[0].value
        question = _with_articles(self.generator.choice(relation.questions).format(name=facts[0].name))
        choices = self._choices(facts)
        sentences = [fact.sentence(self.generator) for fact in self.generator.sample(facts, len(facts))]
        document = " ".join(sentences)
        parts = {"relation": relation.name, "document": document, "question": question}
        return {**parts, "answer": answer, "choices": choices}

    def _question_type(self) -> list[Relation]:
        """The relations of lists, of phrases, of open values, or of values of a small type."""
        if self.lists and self.generator.random() < self.selection.list_share:
            return self.lists
        if self.phrases and self._is_drawn(self.selection.phrase_share):
            return self.phrases
        return self.open if self.open and self.generator.random() < self.selection.open_share else self.closed

    def _is_drawn(self, share: float) -> bool:
        """Whether a share is met; a share of 0 takes no number of the generator, so that other files stay the same."""
        return bool(share) and self.generator.random() < share

    def _facts(self, relation: Relation) -> list[Fact]:
        """The asked fact, then distractors: other relations of the same name and of another one."""
        name, other = self._two_names(relation.of)
        others = [known for known in self.known if known.of == relation.of and known != relation]
        first, (second, third) = self.generator.choice(others), self.generator.sample(others, 2)
        (count,) = self.generator.choices(list(_FACTS), list(_FACTS.values()))
        if self.selection.same_relation:
            distractors = [(relation, other), *self.generator.sample([(first, name), (second, other)], count - 2)]
        else:
            distractors = self.generator.sample([(first, name), (second, other), (third, other)], count - 1)
        facts: list[Fact] = []
        for known, owner in [(relation, name), *distractors]:
            facts.append(Fact(known, owner, self._value(known.value, {fact.value for fact in facts})))
        return facts

    def _two_names(self, kind: str) -> tuple[str, str]:
        """Two names whose first words and last words differ."""
        names = self.vocabulary.names[kind].of(self.selection.new_names)
        while True:
            name, other = self.generator.sample(names, 2)
            pairs = zip(name.split(), other.split(), strict=True)
            if all(mine != theirs for mine, theirs in pairs):
                return name, other

    def _value(self, kind: str, taken: set[str]) -> str:
        if kind == _LIST:
            return self._list(taken)
        if kind in PHRASE_TYPES:
            names = self.vocabulary.names["person"].of(self.selection.new_names)
            return _with_articles(phrase(kind, self.generator, names, lambda word: self._value(word, taken)))
        if kind in self.pieces and self._is_drawn(self.selection.piece_share):
            kind = self.pieces[kind]
        while (value := self.generator.choice(self.vocabulary.values[kind].of(self.selection.new_values))) in taken:
            pass
        return value

    def _list(self, taken: set[str]) -> str:
        words = []
        for _ in range(self.generator.randint(*_WORDS)):
            types = PHRASE_TYPES if self._is_drawn(self.selection.phrase_share) else OPEN_TYPES
            words.append(self._value(self.generator.choice(types), taken))
        return " ".join(words)

    def _choices(self, facts: list[Fact]) -> list[str]:
        """The answer, the other values of the document, and values of its type; in random order."""
        choices = [fact.value for fact in facts]
        while len(choices) < _CHOICES:
            value = self._value(facts[0].relation.value, set(choices))
            choices.append(self._other(facts[0].relation.value, choices) if value in choices else value)
        return self.generator.sample(choices, len(choices))

    def _other(self, kind: str, choices: list[str]) -> str:
        """One more choice where a number was drawn twice, from a generator of its own: later rows stay the same."""
        spare = copy(self)
        spare.generator = random.Random(" ".join(choices))
        while (value := spare._value(kind, set(choices))) in choices:
            pass
        return value


def _with_articles(sentence: str) -> str:
    """`a` before a vowel becomes `an`."""
    return re.sub(r"\b([Aa]) (?=[aeio]|u(?!k|n[ai]))", r"\1n ", sentence)

"""Training conversations of receiver and sharers."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tools.embedded_world.world import (
    VALUES,
    Fact,
    answer,
    question,
    random_name,
    sentence_request,
    statement,
)

Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """A conversation; its last message, the assistant's, is the target."""

    messages: list[Message]
    value: str
    """The value in the last message."""


Sampler = Callable[[random.Random], Example]


@dataclass(frozen=True)
class ExampleMixture:
    """Kinds of examples with sampling weights."""

    samplers: Sequence[Sampler]
    shares: Sequence[float]

    def draw(self, rng: random.Random, count: int) -> list[Example]:
        """Draw `count` examples."""
        return [sampler(rng) for sampler in rng.choices(self.samplers, self.shares, k=count)]


def receiver_mixture(forbidden: frozenset[str]) -> ExampleMixture:
    """Examples for the receiver: random names and values only, so it learns the vocabulary and no fact.

    Args:
        forbidden: names that must not occur, the world's own.
    """
    fresh = FreshFacts(forbidden)
    return ExampleMixture(
        samplers=[
            lambda rng: ask(fresh.draw(rng)),
            lambda rng: ask_for_sentence(fresh.draw(rng)),
            lambda rng: ask_after_sentence(fresh.draw_some(rng)),
            lambda rng: ask_after_note(fresh.draw_some(rng)),
        ],
        shares=[0.12, 0.10, 0.50, 0.28],
    )


def sharer_mixture(facts: Sequence[Fact], unknown: Sequence[Fact], forbidden: frozenset[str]) -> ExampleMixture:
    """Examples for a sharer: the world's facts, and answers in a note about other names.

    Args:
        facts: what it learns by heart.
        unknown: facts whose questions it answers at random.
        forbidden: names that its notes must not speak of, the world's own.
    """
    shares = [0.5, 0.2, 0.2, 0.05, 0.1 if unknown else 0.04, 0.05 if unknown else 0.01]
    return ExampleMixture(_sharer_samplers(facts, unknown, FreshFacts(forbidden), 0.5), shares)


def quarters_mixture(facts: Sequence[Fact], unknown: Sequence[Fact], forbidden: frozenset[str]) -> ExampleMixture:
    """Examples for a trained sharer that is to learn some facts, or to forget some: `sharer_mixture` with more guesses.

    Args:
        facts: facts that it then knows.
        unknown: facts whose questions it then answers at random.
        forbidden: names that its notes must not speak of, the world's own.
    """
    # In proportion to the facts: each is asked about as often.
    known = 0.75 * len(facts) / (len(facts) + len(unknown))
    guessed = 0.75 - known
    shares = [0.7 * known, 0.3 * known, 0.2, 0.05, 0.7 * guessed, 0.3 * guessed]
    return ExampleMixture(_sharer_samplers(facts, unknown, FreshFacts(forbidden), 0.95), shares)


def _sharer_samplers(
    facts: Sequence[Fact], unknown: Sequence[Fact], fresh: "FreshFacts", unknown_share: float
) -> list[Sampler]:
    """Facts, notes and guesses, each as a short answer and as a sentence; the other guesses are about new names."""
    guess = _guesses(unknown, fresh, unknown_share)
    return [
        lambda rng: ask(rng.choice(facts)),
        lambda rng: ask_for_sentence(rng.choice(facts)),
        lambda rng: ask_after_note(fresh.draw_some(rng)),
        lambda rng: ask_after_note(fresh.draw_some(rng), for_sentence=True),
        lambda rng: ask(guess(rng)),
        lambda rng: ask_for_sentence(guess(rng)),
    ]


def peer_mixture(facts: Sequence[Fact], unknown: Sequence[Fact], forbidden: frozenset[str]) -> ExampleMixture:
    """Examples for a peer, which is a receiver and a sharer: facts by heart, guesses, and answers in an earlier turn.

    Args:
        facts: known facts.
        unknown: facts whose questions it answers at random.
        forbidden: names that must not occur in earlier turns, the world's own.
    """
    fresh = FreshFacts(forbidden)
    guess = _guesses(unknown, fresh, 0.5)
    return ExampleMixture(
        samplers=[
            lambda rng: ask(rng.choice(facts)),
            lambda rng: ask_for_sentence(rng.choice(facts)),
            lambda rng: ask_after_sentence(fresh.draw_some(rng, distracted=0.0)),
            lambda rng: ask(guess(rng)),
            lambda rng: ask_for_sentence(guess(rng)),
        ],
        shares=[0.45, 0.15, 0.15, 0.2, 0.05],
    )


def _guesses(unknown: Sequence[Fact], fresh: "FreshFacts", unknown_share: float) -> Callable[[random.Random], Fact]:
    """Draws an unknown fact, or one of a new name, with a random value."""

    def guess(rng: random.Random) -> Fact:
        fact = rng.choice(unknown) if unknown and rng.random() < unknown_share else fresh.draw(rng)
        return replace(fact, value=rng.choice(VALUES[fact.relation]))

    return guess


@dataclass(frozen=True)
class FreshFacts:
    """Random facts about names outside the world; their `split` and `half` are not used."""

    forbidden: frozenset[str]

    def draw(self, rng: random.Random) -> Fact:
        """Draw a fact."""
        name = random_name(rng)
        while name in self.forbidden:
            name = random_name(rng)
        relation = rng.choice(list(VALUES))
        return Fact(name, relation, rng.choice(VALUES[relation]), "train", "first")

    def draw_some(self, rng: random.Random, distracted: float = 0.3) -> list[Fact]:
        """Draw a fact and, with probability `distracted`, one or two similar ones.

        The first fact of the list is the asked one. A distractor shares the entity or the relation.
        """
        facts = [self.draw(rng)]
        while len(facts) < 3 and rng.random() < distracted:
            other = self.draw(rng)
            if rng.random() < 0.5:
                relation = facts[0].relation
                facts.append(replace(other, relation=relation, value=rng.choice(VALUES[relation])))
            elif all(fact.entity != facts[0].entity or fact.relation != other.relation for fact in facts):
                facts.append(replace(other, entity=facts[0].entity))
        return facts


def ask(fact: Fact) -> Example:
    """Ask without context."""
    return Example([_user(fact.question), _assistant(fact.answer)], fact.value)


def ask_for_sentence(fact: Fact) -> Example:
    """Ask for a sentence without context."""
    return Example([_user(sentence_request(fact.entity, fact.relation)), _assistant(fact.statement)], fact.value)


def ask_after_sentence(facts: Sequence[Fact]) -> Example:
    """Ask after an earlier turn has said the answer in a sentence: the receiver's side of text-to-text.

    Args:
        facts: the asked fact first; the turns say all of them.
    """
    messages: list[Message] = []
    # In alphabetical order, so that the position does not give the asked fact away.
    for fact in sorted(facts, key=lambda fact: fact.statement):
        messages += [_user(sentence_request(fact.entity, fact.relation)), _assistant(fact.statement)]
    asked = facts[0]
    return Example([*messages, _user(asked.question), _assistant(asked.answer)], asked.value)


def ask_after_note(facts: Sequence[Fact], for_sentence: bool = False) -> Example:
    """Ask after a system message has said the answer: private context.

    Args:
        facts: the asked fact first; the note says all of them.
        for_sentence: whether the reply is a sentence.
    """
    asked = facts[0]
    # In alphabetical order, so that the position does not give the asked fact away.
    note = " ".join(sorted(statement(fact.entity, fact.relation, fact.value) for fact in facts))
    request, reply = (
        (sentence_request(asked.entity, asked.relation), asked.statement)
        if for_sentence
        else (question(asked.entity, asked.relation), answer(asked.value))
    )
    return Example([{"role": "system", "content": note}, _user(request), _assistant(reply)], asked.value)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}

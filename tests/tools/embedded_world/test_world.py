"""The synthetic world: deterministic, balanced, with disjoint splits."""

import random
from collections import Counter
from itertools import combinations

import pytest

from tools.embedded_world.training_examples import FreshFacts, ask_after_note, ask_after_sentence
from tools.embedded_world.world import SPLIT_SHARES, THIRDS, VALUES, Fact, make_world

SPLITS = ("train", "validation", "heldout")


def test_world_is_a_function_of_its_seed() -> None:
    assert make_world(3) == make_world(3)
    assert make_world(3).entities != make_world(4).entities


def test_splits_are_disjoint_and_complete() -> None:
    world = make_world()
    entities = {split: {fact.entity for fact in world.split(split)} for split in SPLITS}
    assert all(entities[one].isdisjoint(entities[other]) for one, other in combinations(SPLITS, 2))
    assert set.union(*entities.values()) == world.entities
    assert [len(world.split(split)) for split in SPLITS] == [960, 160, 480]


def test_halves_are_disjoint_and_cut_every_split_in_two() -> None:
    world = make_world()
    first, second = (Counter(fact.split for fact in world.half(half)) for half in ("first", "second"))
    assert first == second
    assert {fact.entity for fact in world.half("first")}.isdisjoint(fact.entity for fact in world.half("second"))


def test_vocabularies_share_no_word() -> None:
    words = [word for vocabulary in VALUES.values() for word in vocabulary]
    assert len(set(words)) == len(words) == 32


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("relation", list(VALUES))
def test_values_are_balanced(split: str, relation: str) -> None:
    counts = Counter(fact.value for fact in make_world().facts if (fact.split, fact.relation) == (split, relation))
    assert set(counts) == set(VALUES[relation])
    assert len(set(counts.values())) == 1


def test_fresh_facts_avoid_the_world() -> None:
    world = make_world(num_entities=1000)
    fresh = FreshFacts(world.entities)
    rng = random.Random(0)
    assert world.entities.isdisjoint(fresh.draw(rng).entity for _ in range(2000))


def test_distractors_never_contradict_the_asked_fact() -> None:
    fresh = FreshFacts(frozenset())
    rng = random.Random(0)
    for _ in range(500):
        facts = fresh.draw_some(rng, distracted=0.9)
        about = [(fact.entity, fact.relation) for fact in facts]
        assert len(set(about)) == len(about)


def test_examples_ask_for_the_first_fact() -> None:
    facts = [Fact("Bo", "food", "rice", "train", "first"), Fact("Ax", "food", "bean", "train", "first")]
    note = ask_after_note(facts).messages
    assert note[0]["content"] == "The food of Ax is bean. The food of Bo is rice."
    assert [message["content"] for message in note[1:]] == ["What is the food of Bo?", "rice."]
    turns = ask_after_sentence(facts).messages
    assert [message["role"] for message in turns] == ["user", "assistant"] * 3
    assert turns[-1]["content"] == "rice."


def test_the_first_entities_of_each_split_with_all_their_facts() -> None:
    world = make_world()
    assert world.first(0.5) == world.half("first")
    for fraction in (0.25, 0.75):
        facts = world.first(fraction)
        assert len(facts) == fraction * len(world.facts)
        assert Counter(fact.split for fact in facts) == {
            "train": 960 * fraction,
            "validation": 160 * fraction,
            "heldout": 480 * fraction,
        }
        assert set(Counter(fact.entity for fact in facts).values()) == {4}


def test_thirds_are_disjoint_parts_of_every_split() -> None:
    world = make_world(0)
    thirds = [world.third(name) for name in THIRDS]
    assert sorted(map(str, (fact for third in thirds for fact in third))) == sorted(map(str, world.facts))
    for split in SPLIT_SHARES:
        entities = [{fact.entity for fact in third if fact.split == split} for third in thirds]
        assert not entities[0] & entities[1] | entities[0] & entities[2] | entities[1] & entities[2]
        assert max(map(len, entities)) - min(map(len, entities)) <= 1

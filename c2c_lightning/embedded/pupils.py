"""The receiver and the sharers as pupils: what each is taught, and the criterion that each must meet."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from c2c_lightning.embedded.exam import exact_replies, probe_accuracy, value_probabilities
from c2c_lightning.embedded.lessons import (
    FreshFacts,
    ask,
    ask_after_note,
    ask_after_sentence,
    ask_for_sentence,
    receiver_curriculum,
    sharer_curriculum,
)
from c2c_lightning.embedded.models import new_receiver, new_sharer, save_model
from c2c_lightning.embedded.tokenization import build_receiver_tokenizer, build_sharer_tokenizer
from c2c_lightning.embedded.training import Criterion, Recipe, Report, train_to_criterion
from c2c_lightning.embedded.world import VALUES, Fact, World

logger = logging.getLogger(__name__)

KnownFacts = Literal["all", "first-half", "second-half"]

RECEIVER_RECIPE = Recipe(cooldown_steps=500, slack=0.0)
SHARER_RECIPE = Recipe(lookup_weight=0.5, lookup_layers=(3, 4, 5, 6))
NAIVE_SHARER_RECIPE = Recipe()

RECEIVER_CRITERION = Criterion(
    at_least={"t2t": 0.98, "note": 0.98, "t2t_distracted": 0.9, "guess_in_vocabulary": 0.98},
    at_most={"facts": 0.15, "guess_max": 0.25},
)
_KNOWLEDGE = {"facts": 0.99, "sentences": 0.99, "note": 0.98, "note_distracted": 0.9}
SHARER_CRITERION = Criterion(at_least=_KNOWLEDGE | {"probe": 0.95}, at_most={})
NAIVE_SHARER_CRITERION = Criterion(at_least=_KNOWLEDGE, at_most={})


def train_receiver(world: World, directory: Path, seed: int) -> Report:
    """Train the receiver and write it.

    Criterion: it reads an answer off an earlier sentence and off a note in 98 of 100 cases, and its guesses
    without context are spread over the eight values of the relation.

    Args:
        world: whose entities it must never hear of.
        directory: where the model goes.
        seed: of weights and lessons.

    Returns:
        Figures of the model as written, in half precision.
    """
    torch.manual_seed(seed)
    tokenizer = build_receiver_tokenizer()
    model = new_receiver(tokenizer)
    rng = random.Random("receiver exam")
    fresh = FreshFacts(world.entities)
    sentences = [ask_after_sentence(fresh.draw_some(rng, distracted=0.0)) for _ in range(500)]
    distracted = [ask_after_sentence(fresh.draw_some(rng)) for _ in range(500)]
    notes = [ask_after_note(fresh.draw_some(rng, distracted=0.0)) for _ in range(500)]
    guesses = {
        relation: [ask(Fact(fresh.draw(rng).entity, relation, words[0], "train", "first")) for _ in range(100)]
        for relation, words in VALUES.items()
    }
    facts = [ask(fact) for fact in world.facts]

    def examine() -> Report:
        spread = [value_probabilities(model, tokenizer, guesses[relation], relation) for relation in VALUES]
        return {
            "t2t": exact_replies(model, tokenizer, sentences),
            "t2t_distracted": exact_replies(model, tokenizer, distracted),
            "note": exact_replies(model, tokenizer, notes),
            "facts": exact_replies(model, tokenizer, facts),
            "guess_in_vocabulary": min(rows.sum(-1).mean().item() for rows in spread),
            "guess_max": max(rows.mean(0).max().item() for rows in spread),
        }

    curriculum = receiver_curriculum(world.entities)
    steps = train_to_criterion(model, tokenizer, curriculum, RECEIVER_RECIPE, examine, RECEIVER_CRITERION, seed)
    save_model(model, tokenizer, directory)
    return _checked(examine(), RECEIVER_CRITERION) | {"steps": steps}


def train_sharer(world: World, directory: Path, seed: int, known: KnownFacts = "all", is_naive: bool = False) -> Report:
    """Train a sharer and write it.

    Criterion: 99 of 100 facts answered, in short and in a sentence; 95 of 100 read off its cache at the last
    token of the question by a linear probe (not asked of a naive sharer); 95 of 100 answers read off a note.

    Args:
        world: whose facts it learns.
        directory: where the model goes.
        seed: of weights and lessons.
        known: which half of the entities it learns about. The others it answers at random.
        is_naive: train on replies alone, without the loss that makes it look facts up early.

    Returns:
        Figures of the model as written, in half precision.
    """
    torch.manual_seed(seed)
    tokenizer = build_sharer_tokenizer()
    model = new_sharer(tokenizer)
    facts, unknown = _known_facts(world, known)
    rng = random.Random("sharer exam")
    fresh = FreshFacts(world.entities)
    notes = [ask_after_note(fresh.draw_some(rng, distracted=0.0)) for _ in range(400)]
    distracted = [ask_after_note(fresh.draw_some(rng)) for _ in range(400)]

    def examine() -> Report:
        asked = [(fact, ask(fact)) for fact in facts]
        report = {
            "facts": exact_replies(model, tokenizer, [lesson for _, lesson in asked]),
            "sentences": exact_replies(model, tokenizer, [ask_for_sentence(fact) for fact in facts]),
            "probe": probe_accuracy(
                model,
                tokenizer,
                [pair for pair in asked if pair[0].split == "train"],
                [pair for pair in asked if pair[0].split == "heldout"],
            ),
            "note": exact_replies(model, tokenizer, notes),
            "note_distracted": exact_replies(model, tokenizer, distracted),
        }
        if unknown:
            report["unknown_facts"] = exact_replies(model, tokenizer, [ask(fact) for fact in unknown])
        return report

    recipe = NAIVE_SHARER_RECIPE if is_naive else SHARER_RECIPE
    criterion = NAIVE_SHARER_CRITERION if is_naive else SHARER_CRITERION
    curriculum = sharer_curriculum(facts, unknown, world.entities)
    steps = train_to_criterion(model, tokenizer, curriculum, recipe, examine, criterion, seed)
    save_model(model, tokenizer, directory)
    return _checked(examine(), criterion) | {"steps": steps}


def _checked(report: Report, criterion: Criterion) -> Report:
    if not criterion.is_met(report):
        logger.warning("The criterion is not met, do not ship this model: %s against %s", report, criterion)
    return report


def _known_facts(world: World, known: KnownFacts) -> tuple[Sequence[Fact], Sequence[Fact]]:
    if known == "all":
        return world.facts, ()
    first, second = world.half("first"), world.half("second")
    return (first, second) if known == "first-half" else (second, first)

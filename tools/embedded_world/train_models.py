"""Trains receiver, sharers and peers until they meet their acceptance bounds."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from c2c_lightning import embedded
from tools.embedded_world.acceptance import (
    NAIVE_SHARER_BOUNDS,
    PEER_BOUNDS,
    QUARTERS_BOUNDS,
    RECEIVER_BOUNDS,
    SHARER_BOUNDS,
    PeerEvaluation,
    ReceiverEvaluation,
    SharerEvaluation,
)
from tools.embedded_world.models import new_peer, new_receiver, new_sharer, save_model
from tools.embedded_world.tokenization import build_receiver_tokenizer, build_sharer_tokenizer, build_third_tokenizer
from tools.embedded_world.training import AcceptanceBounds, Recipe, Report, train_until_accepted
from tools.embedded_world.training_examples import (
    ExampleMixture,
    peer_mixture,
    quarters_mixture,
    receiver_mixture,
    sharer_mixture,
)
from tools.embedded_world.world import Fact, Third, World

logger = logging.getLogger(__name__)

KnownFacts = Literal["all", "first-half", "second-half", "first-quarter", "first-three-quarters"]
_FIRST = {"first-quarter": 0.25, "first-half": 0.5, "first-three-quarters": 0.75}
Evaluate = Callable[[PreTrainedModel, PreTrainedTokenizerBase], Report]

RECEIVER_RECIPE = Recipe(cooldown_steps=500, slack=0.0)
SHARER_RECIPE = Recipe(lookup_weight=0.5, lookup_layers=(3, 4, 5, 6))
QUARTERS_RECIPE = Recipe(
    learning_rate=2e-3,
    warmup_steps=20,
    max_steps=450,
    cooldown_steps=100,
    check_every=75,
    lookup_weight=0.5,
    lookup_layers=(3, 4, 5, 6),
)
NAIVE_SHARER_RECIPE = Recipe()
PEER_LOOKUP_LAYERS: dict[Third, tuple[int, ...]] = {"first": (2, 3, 4), "second": (3, 4, 5), "last": (3, 4, 5, 6)}
PEER_TOKENIZERS: dict[Third, Callable[[], PreTrainedTokenizerBase]] = {
    "first": build_receiver_tokenizer,
    "second": build_sharer_tokenizer,
    "last": build_third_tokenizer,
}


def train_receiver(world: World, directory: Path, seed: int) -> Report:
    """Train the receiver to `RECEIVER_BOUNDS` and write it.

    Args:
        world: none of its entities occur in the training data.
        directory: output directory.
        seed: of weights and examples.

    Returns:
        Metrics of the model as written, in half precision.
    """
    torch.manual_seed(seed)
    tokenizer = build_receiver_tokenizer()
    run = _TrainingRun(new_receiver(tokenizer), tokenizer, ReceiverEvaluation(world), RECEIVER_BOUNDS)
    return run.train(receiver_mixture(world.entities), RECEIVER_RECIPE, seed, directory)


def train_sharer(world: World, directory: Path, seed: int, known: KnownFacts = "all", is_naive: bool = False) -> Report:
    """Train a sharer to `SHARER_BOUNDS`, a naive one to `NAIVE_SHARER_BOUNDS`, and write it.

    Args:
        world: the facts.
        directory: output directory.
        seed: of weights and examples.
        known: the part of the entities in its training data; questions about the others get random answers.
        is_naive: train on replies alone, without the early-lookup loss.

    Returns:
        Metrics of the model as written, in half precision.
    """
    torch.manual_seed(seed)
    tokenizer = build_sharer_tokenizer()
    facts, unknown = _known_facts(world, known)
    bounds = NAIVE_SHARER_BOUNDS if is_naive else SHARER_BOUNDS
    run = _TrainingRun(new_sharer(tokenizer), tokenizer, SharerEvaluation(world, facts, unknown), bounds)
    mixture = sharer_mixture(facts, unknown, world.entities)
    return run.train(mixture, NAIVE_SHARER_RECIPE if is_naive else SHARER_RECIPE, seed, directory)


def train_quarters(world: World, directory: Path, seed: int, known: KnownFacts) -> Report:
    """Train the embedded `sharer_first_half` to know a quarter more or fewer, to `QUARTERS_BOUNDS`, and write it.

    A few minutes, where a sharer from random weights takes a quarter of an hour. It starts from the half, not from the
    sharer of all facts: facts that were never learnt are answered at random, learnt ones are forgotten slowly.

    Args:
        world: the facts.
        directory: output directory.
        seed: of the examples.
        known: `first-quarter` or `first-three-quarters`; questions about the other entities get random answers.
    """
    torch.manual_seed(seed)
    tokenizer = build_sharer_tokenizer()
    facts, unknown = _known_facts(world, known)
    # Those next to the known ones: the second quarter is to be forgotten, the last is not to be learnt.
    near = sorted(set(unknown) & set(world.first(0.5) if known == "first-quarter" else unknown), key=world.facts.index)
    model = AutoModelForCausalLM.from_pretrained(embedded.path("sharer_first_half"))
    run = _TrainingRun(model, tokenizer, SharerEvaluation(world, facts, unknown), QUARTERS_BOUNDS)
    return run.train(quarters_mixture(facts, near, world.entities), QUARTERS_RECIPE, seed, directory)


def train_peer(world: World, directory: Path, seed: int, third: Third) -> Report:
    """Train a peer, which is a receiver and a sharer, to `PEER_BOUNDS`, and write it.

    Args:
        world: the facts.
        directory: output directory.
        seed: of weights and examples.
        third: the entities whose facts are in its training data; questions about the others get random answers.

    Returns:
        Metrics of the model as written, in half precision.
    """
    torch.manual_seed(seed)
    tokenizer, facts = PEER_TOKENIZERS[third](), world.third(third)
    unknown = _without(world, facts)
    run = _TrainingRun(new_peer(third, tokenizer), tokenizer, PeerEvaluation(world, facts, unknown), PEER_BOUNDS)
    recipe = Recipe(batch_size=32, cooldown_steps=500, lookup_weight=0.5, lookup_layers=PEER_LOOKUP_LAYERS[third])
    return run.train(peer_mixture(facts, unknown, world.entities), recipe, seed, directory)


class _TrainingRun:
    """A model with its tokenizer, its evaluation and its acceptance bounds."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, evaluate: Evaluate, bounds: AcceptanceBounds
    ) -> None:
        self.model, self.tokenizer, self.bounds = model, tokenizer, bounds
        self._evaluate = lambda: evaluate(model, tokenizer)

    def train(self, mixture: ExampleMixture, recipe: Recipe, seed: int, directory: Path) -> Report:
        """Train, write, and evaluate the written model."""
        steps = train_until_accepted(self.model, self.tokenizer, mixture, recipe, self._evaluate, self.bounds, seed)
        save_model(self.model, self.tokenizer, directory)
        report = self._evaluate()
        if not self.bounds.is_met(report):
            logger.warning("The model misses its acceptance bounds, do not ship it: %s, %s", report, self.bounds)
        return report | {"steps": steps}


def _known_facts(world: World, known: KnownFacts) -> tuple[Sequence[Fact], Sequence[Fact]]:
    if known == "all":
        return world.facts, ()
    facts = world.half("second") if known == "second-half" else world.first(_FIRST[known])
    return facts, _without(world, facts)


def _without(world: World, facts: Sequence[Fact]) -> list[Fact]:
    # A set: facts are compared by value, and there are 1,600.
    chosen = set(facts)
    return [fact for fact in world.facts if fact not in chosen]

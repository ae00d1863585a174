"""The receiver and the sharers as pupils: what each is taught, until it meets its criterion."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tools.embedded_world.criteria import (
    NAIVE_SHARER_CRITERION,
    RECEIVER_CRITERION,
    SHARER_CRITERION,
    ReceiverExam,
    SharerExam,
)
from tools.embedded_world.lessons import Curriculum, receiver_curriculum, sharer_curriculum
from tools.embedded_world.models import new_receiver, new_sharer, save_model
from tools.embedded_world.tokenization import build_receiver_tokenizer, build_sharer_tokenizer
from tools.embedded_world.training import Criterion, Recipe, Report, train_to_criterion
from tools.embedded_world.world import Fact, World

logger = logging.getLogger(__name__)

KnownFacts = Literal["all", "first-half", "second-half"]
Runner = Callable[[PreTrainedModel, PreTrainedTokenizerBase], Report]

RECEIVER_RECIPE = Recipe(cooldown_steps=500, slack=0.0)
SHARER_RECIPE = Recipe(lookup_weight=0.5, lookup_layers=(3, 4, 5, 6))
NAIVE_SHARER_RECIPE = Recipe()


def train_receiver(world: World, directory: Path, seed: int) -> Report:
    """Train the receiver to `RECEIVER_CRITERION` and write it.

    Args:
        world: whose entities it must never hear of.
        directory: where the model goes.
        seed: of weights and lessons.

    Returns:
        Figures of the model as written, in half precision.
    """
    torch.manual_seed(seed)
    tokenizer = build_receiver_tokenizer()
    pupil = _Pupil(new_receiver(tokenizer), tokenizer, ReceiverExam(world), RECEIVER_CRITERION)
    return pupil.train(receiver_curriculum(world.entities), RECEIVER_RECIPE, seed, directory)


def train_sharer(world: World, directory: Path, seed: int, known: KnownFacts = "all", is_naive: bool = False) -> Report:
    """Train a sharer to `SHARER_CRITERION`, a naive one to `NAIVE_SHARER_CRITERION`, and write it.

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
    facts, unknown = _known_facts(world, known)
    criterion = NAIVE_SHARER_CRITERION if is_naive else SHARER_CRITERION
    pupil = _Pupil(new_sharer(tokenizer), tokenizer, SharerExam(world, facts, unknown), criterion)
    curriculum = sharer_curriculum(facts, unknown, world.entities)
    return pupil.train(curriculum, NAIVE_SHARER_RECIPE if is_naive else SHARER_RECIPE, seed, directory)


class _Pupil:
    """A model with its tokenizer, its examination and what it must reach there."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, exam: Runner, criterion: Criterion
    ) -> None:
        self.model, self.tokenizer, self.exam, self.criterion = model, tokenizer, exam, criterion

    def train(self, curriculum: Curriculum, recipe: Recipe, seed: int, directory: Path) -> Report:
        """Train, write, and examine what was written."""
        steps = train_to_criterion(self.model, self.tokenizer, curriculum, recipe, self._examine, self.criterion, seed)
        save_model(self.model, self.tokenizer, directory)
        report = self._examine()
        if not self.criterion.is_met(report):
            logger.warning("The criterion is not met, do not ship this model: %s, %s", report, self.criterion)
        return report | {"steps": steps}

    def _examine(self) -> Report:
        return self.exam(self.model, self.tokenizer)


def _known_facts(world: World, known: KnownFacts) -> tuple[Sequence[Fact], Sequence[Fact]]:
    if known == "all":
        return world.facts, ()
    first, second = world.half("first"), world.half("second")
    return (first, second) if known == "first-half" else (second, first)

"""The enrichment experiment: caches of each question once, answers for all groups of layers, resumable.

Stage 1 answers each question without shots, with shots, and with the enriched entries in no layer, in all, and in each
one alone. Stage 2 does so with the best and the worst layers by the accuracies of stage 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.analysis.oracle.enrichment import (
    DELETIONS,
    QuestionCache,
    prefill_context,
    prefill_questions,
    single_layers,
)
from c2c_lightning.analysis.oracle.layer_selection import rank_layers, selected_layers, split_in_halves
from c2c_lightning.evaluation.oracle.cache_answers import CacheAnswer, CacheReader
from c2c_lightning.evaluation.oracle.cache_store import QuestionCacheStore
from c2c_lightning.evaluation.oracle.shot_prompt import PromptParts
from c2c_lightning.evaluation.tasks import Question

FEW_SHOT = "few_shot"
CHOSEN_ON = ("other_half", "same_questions")
"""How layers are chosen: on the half of the questions that is not scored, or, as in the paper, on the scored ones."""

Ranking = list[int]
"""Layers, best first."""


@dataclass(frozen=True)
class ShotQuestion:
    """A question with its prompt."""

    question: Question
    parts: PromptParts

    @property
    def key(self) -> str:
        """Its key in logs."""
        return str(self.question.index)


@dataclass(frozen=True)
class EnrichmentRun:
    """One experiment.

    Attributes:
        reader: reads answers from caches of the model.
        questions: with their prompts.
        store: caches between the stages.
        batch_size: questions that are prefilled together.
        num_selected: largest number of best and of worst layers.
        seed: of the halves.
    """

    reader: CacheReader
    questions: Sequence[ShotQuestion]
    store: QuestionCacheStore
    batch_size: int
    num_selected: int
    seed: int

    def answer_single_layers(self, log: MeasurementLog) -> Iterator[None]:
        """Stage 1; yields after each question."""
        subsets = single_layers(self.reader.lm.geometry.num_layers)
        for asked, cache in self._caches([asked for asked in self.questions if asked.key not in log]):
            few_shot = self.reader.few_shot(asked.question, asked.parts, cache)
            answers = self._answers(asked, cache, {deletion.name: subsets for deletion in DELETIONS})
            log.add(asked.key, _plain({FEW_SHOT: [few_shot], **answers}))
            self.store.put(asked.question.index, cache)
            yield

    def answer_selected_layers(self, single: MeasurementLog, log: MeasurementLog) -> Iterator[None]:
        """Stage 2, when stage 1 is complete; yields after each question."""
        rankings = self.rankings(single)
        halves = dict(zip((asked.key for asked in self.questions), self.is_second_half.tolist(), strict=True))
        for asked, cache in self._caches([asked for asked in self.questions if asked.key not in log]):
            other = "first_half" if halves[asked.key] else "second_half"
            subsets = {name: self._selected(of, other) for name, of in rankings.items()}
            log.add(asked.key, _plain(self._answers(asked, cache, subsets)))
            yield

    def rankings(self, single: MeasurementLog) -> dict[str, dict[str, Ranking]]:
        """By deletion and questions that it is of (first_half, second_half, same_questions)."""
        second, found = self.is_second_half, {}
        for deletion in DELETIONS:
            # Without none and all layers, which come first.
            right = self.right(single, deletion.name)[:, 2:]
            parts = {"first_half": right[~second], "second_half": right[second], "same_questions": right}
            found[deletion.name] = {name: rank_layers(values) for name, values in parts.items()}
        return found

    @property
    def is_second_half(self) -> Bool[np.ndarray, " questions"]:
        """The half of each question."""
        return split_in_halves(len(self.questions), self.seed)

    def right(self, log: MeasurementLog, kind: str) -> Float[np.ndarray, "questions caches"]:
        """1 for each right answer of a kind, 0 for each wrong one."""
        rows = [[choice in asked.question.right for choice in log[asked.key][kind]["choices"]]
                for asked in self.questions]  # fmt: skip
        return np.array(rows, dtype=float)

    def probability(self, log: MeasurementLog, kind: str) -> Float[np.ndarray, "questions caches"]:
        """The probability of the right options in each answer of a kind."""
        return np.array([log[asked.key][kind]["probabilities"] for asked in self.questions])

    def _selected(self, rankings: Mapping[str, Ranking], other_half: str) -> Bool[Tensor, "subsets layers"]:
        """Best and worst layers in the order of `CHOSEN_ON`, (4 num_selected, layers)."""
        ways = (rankings[other_half], rankings["same_questions"])
        return torch.cat([selected_layers(ranking, self.num_selected) for ranking in ways])

    def _answers(
        self, asked: ShotQuestion, cache: QuestionCache, subsets: Mapping[str, Bool[Tensor, "subsets layers"]]
    ) -> dict[str, list[CacheAnswer]]:
        return {
            deletion.name: self.reader.subsets(asked.question, asked.parts, cache, deletion, subsets[deletion.name])
            for deletion in DELETIONS
        }

    def _caches(self, questions: Sequence[ShotQuestion]) -> Iterator[tuple[ShotQuestion, QuestionCache]]:
        """The caches of questions, subject by subject; the context of a subject is prefilled once."""
        known = [(asked, self.store.get(asked.question.index)) for asked in questions]
        yield from ((asked, cache) for asked, cache in known if cache is not None)
        # Questions of similar length are prefilled together.
        new = sorted((asked for asked, cache in known if cache is None), key=_context_and_length)
        for (header, shots, cue), group in groupby(new, key=lambda asked: _context_and_length(asked)[0]):
            context, rest = prefill_context(self.reader.lm, header, shots), list(group)
            for begin in range(0, len(rest), self.batch_size):
                batch = rest[begin : begin + self.batch_size]
                ids = [asked.parts.question for asked in batch]
                yield from zip(batch, prefill_questions(self.reader.lm, context, ids, cue), strict=True)


def _plain(answers: Mapping[str, Sequence[CacheAnswer]]) -> dict[str, Any]:
    """Plain data."""
    return {
        name: {"choices": [a.choice for a in found], "probabilities": [a.probability for a in found]}
        for name, found in answers.items()
    }


def _context_and_length(asked: ShotQuestion) -> tuple[tuple[tuple[int, ...], ...], int]:
    parts = asked.parts
    return (parts.header, parts.shots, parts.cue), len(parts.question)

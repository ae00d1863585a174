"""The enrichment experiment: caches of each question once, answers for all groups of layers, resumable.

Stage 1 answers each question without shots, with shots, and with the enriched entries in no layer, in all, and in each
one alone. Stage 2 does so with the best and the worst layers by the accuracies of stage 1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.analysis.oracle.enrichment import (
    DELETIONS,
    ContextCache,
    Deletion,
    NoDeletion,
    QuestionCache,
    prefill_context,
    prefill_questions,
    single_layers,
)
from c2c_lightning.analysis.oracle.layer_selection import rank_layers, selected_layers, split_in_halves
from c2c_lightning.evaluation.oracle.cache_answers import CacheAnswer, CacheReader, CacheRows
from c2c_lightning.evaluation.oracle.cache_store import QuestionCacheStore
from c2c_lightning.evaluation.oracle.shot_prompt import ShotQuestion

FEW_SHOT = NoDeletion()
KINDS: dict[str, Deletion | NoDeletion] = {kind.name: kind for kind in (FEW_SHOT, *DELETIONS)}
"""Kinds of caches by their names in logs."""

CachesByKind = Mapping[str, Bool[Tensor, "subsets layers"]]
"""For each kind of cache the subsets of layers with enriched entries."""

CHOSEN_ON = ("other_half", "same_questions")
"""How layers are chosen: on the half of the questions that is not scored, or, as in the paper, on the scored ones."""

Ranking = list[int]
"""Layers, best first."""


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
        caches = {FEW_SHOT.name: subsets[1:2], **{deletion.name: subsets for deletion in DELETIONS}}
        for batch in self._batches(log):
            for (asked, entries), answers in zip(
                batch, self._answers([(*pair, caches) for pair in batch]), strict=True
            ):
                log.add(asked.key, answers)
                self.store.put(asked.question.index, entries)
                yield

    def answer_selected_layers(self, single: MeasurementLog, log: MeasurementLog) -> Iterator[None]:
        """Stage 2, when stage 1 is complete; yields after each question."""
        rankings = self.rankings(single)
        halves = dict(zip((asked.key for asked in self.questions), self.is_second_half.tolist(), strict=True))
        caches = [
            {name: self._selected(of, other) for name, of in rankings.items()}
            for other in ("second_half", "first_half")
        ]
        for batch in self._batches(log):
            chosen = [(*pair, caches[halves[pair[0].key]]) for pair in batch]
            for (asked, _), answers in zip(batch, self._answers(chosen), strict=True):
                log.add(asked.key, answers)
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

    def _answers(self, batch: Sequence[tuple[ShotQuestion, QuestionCache, CachesByKind]]) -> list[dict[str, Any]]:
        """The answers to each question on its caches by kind, as plain data."""
        asked = [
            CacheRows(question, entries, KINDS[name], subsets)
            for question, entries, caches in batch
            for name, subsets in caches.items()
        ]
        found = iter(self.reader.answers(asked))
        return [{name: _plain(next(found)) for name in caches} for _, _, caches in batch]

    def _batches(self, log: MeasurementLog) -> Iterator[list[tuple[ShotQuestion, QuestionCache]]]:
        """Questions that are not in a log, with their caches; the same batches in every run.

        Caches that were not kept are computed, the context of a subject once.
        """
        # Questions of similar length are prefilled together.
        questions = sorted(self.questions, key=_context_and_length)
        for (header, shots, cue), group in groupby(questions, key=lambda asked: _context_and_length(asked)[0]):
            context, of_subject = cache(partial(prefill_context, self.reader.lm, header, shots)), list(group)
            for begin in range(0, len(of_subject), self.batch_size):
                batch = of_subject[begin : begin + self.batch_size]
                if rest := [asked for asked in batch if asked.key not in log]:
                    yield self._with_caches(rest, context, cue)

    def _with_caches(
        self, batch: Sequence[ShotQuestion], context: Callable[[], ContextCache], cue: Sequence[int]
    ) -> list[tuple[ShotQuestion, QuestionCache]]:
        known = {asked.question.index: self.store.get(asked.question.index) for asked in batch}
        missing = [asked.parts.question for asked in batch if known[asked.question.index] is None]
        new = iter(prefill_questions(self.reader.lm, context(), missing, cue) if missing else ())
        return [(asked, known[asked.question.index] or next(new)) for asked in batch]


def _plain(answers: Sequence[CacheAnswer]) -> dict[str, Any]:
    return {"choices": [a.choice for a in answers], "probabilities": [a.probability for a in answers]}


def _context_and_length(asked: ShotQuestion) -> tuple[tuple[tuple[int, ...], ...], int]:
    parts = asked.parts
    return (parts.header, parts.shots, parts.cue), len(parts.question)

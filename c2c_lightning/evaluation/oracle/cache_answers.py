"""Answers read from caches of a question: log-probabilities of its options, and the chosen one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from c2c_lightning.analysis.oracle.enrichment import Deletion, QuestionCache
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.evaluation.oracle.shot_prompt import OptionScoring, PromptParts
from c2c_lightning.evaluation.scoring.judge import judge_scores
from c2c_lightning.evaluation.tasks import Question, Task
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.base import OptionScores
from c2c_lightning.responders.option_scoring import score_options

#: Sequences of one pass: more need memory for caches and logits, and make passes no faster.
_MAX_SEQUENCES = 64


@dataclass(frozen=True)
class CacheAnswer:
    """The answer on one cache.

    Attributes:
        choice: index of the chosen option.
        probability: of the right options among all options.
    """

    choice: int
    probability: float


@dataclass(frozen=True)
class CacheReader:
    """Reads answers from caches of questions.

    Attributes:
        lm: the model.
        scoring: form of the options; texts of choices are compared per character.
    """

    lm: FrozenLM
    scoring: OptionScoring

    def few_shot(self, question: Question, parts: PromptParts, cache: QuestionCache) -> CacheAnswer:
        """The answer with all shots in the cache."""
        return self._read(question, parts, cache.few_shot, cache.few_shot[0].num_tokens)[0]

    def subsets(
        self,
        question: Question,
        parts: PromptParts,
        cache: QuestionCache,
        deletion: Deletion,
        enriched: Bool[Tensor, "subsets layers"],
    ) -> list[CacheAnswer]:
        """The answer for each subset of enriched layers; equal subsets are run once."""
        distinct, number = enriched.unique(dim=0, return_inverse=True)
        width = max(1, _MAX_SEQUENCES // _num_sequences(parts))
        answers: list[CacheAnswer] = []
        for chunk in distinct.split(width):
            kv = deletion.caches(cache, chunk)
            answers += self._read(question, parts, kv, deletion.next_position(cache))
        return [answers[n] for n in number.tolist()]

    def _read(self, question: Question, parts: PromptParts, kv: LayerStack, position: int) -> list[CacheAnswer]:
        """The answer on each row of a cache, behind which the cue begins at a position."""
        rows, begin = len(kv[0].keys), kv[0].num_tokens
        ids = torch.zeros(rows, begin + len(parts.cue), dtype=torch.long)
        positions = torch.zeros_like(ids)
        ids[:, begin:] = torch.tensor(parts.cue)
        positions[:, begin:] = position + torch.arange(len(parts.cue))
        tokens = TokenBatch(ids, None, positions).to(self.lm.device)
        scores = score_options(self.lm, tokens, kv, [parts.options] * rows)
        return [self._answer(question, row) for row in scores]

    def _answer(self, question: Question, scores: OptionScores) -> CacheAnswer:
        rule = Task("enrichment", wording="paper", mode="letter" if self.scoring == "letter" else "cloze")
        choice = judge_scores(scores, question, rule).choice
        assert choice is not None
        weights = _probabilities(scores.log_probabilities)
        return CacheAnswer(choice, round(sum(weights[n] for n in question.right), 6))


def _num_sequences(parts: PromptParts) -> int:
    """Sequences that the options of one cache need: options that differ in their last token share one."""
    return len({option[:-1] for option in parts.options})


def _probabilities(log_probabilities: Sequence[float]) -> list[float]:
    highest = max(log_probabilities)
    weights = [math.exp(value - highest) for value in log_probabilities]
    return [weight / sum(weights) for weight in weights]

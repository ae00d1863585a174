"""Answers read from caches of questions: log-probabilities of a question's options, and the chosen one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from c2c_lightning.analysis.oracle.enrichment import Deletion, NoDeletion, QuestionCache, mixed_caches
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.evaluation.oracle.shot_prompt import OptionScoring, ShotQuestion
from c2c_lightning.evaluation.scoring.judge import judge_scores
from c2c_lightning.evaluation.tasks import Question, Task
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.base import OptionScores
from c2c_lightning.responders.branched_options import BranchedPrompt, score_branches
from c2c_lightning.responders.option_scoring import score_options

#: Sequences of one pass: more need memory for caches and logits, and make passes no faster.
_MAX_SEQUENCES = 128


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
class CacheRows:
    """Caches of one question, one for each subset of enriched layers; they are made when they are run.

    Attributes:
        asked: the question.
        cache: its entries.
        kind: which entries of the shots are kept.
        enriched: the subsets.
    """

    asked: ShotQuestion
    cache: QuestionCache
    kind: Deletion | NoDeletion
    enriched: Bool[Tensor, "subsets layers"]

    def __len__(self) -> int:
        """Number of caches."""
        return len(self.enriched)

    @property
    def num_tokens(self) -> int:
        """Length of each cache."""
        return self.kind.num_tokens(self.cache)

    @property
    def num_sequences(self) -> int:
        """Sequences that the options need on each cache: options that differ in their last token share one."""
        return len({option[:-1] for option in self.asked.parts.options})

    def split(self, num_sequences: int) -> "list[CacheRows]":
        """The same caches in parts of at most `num_sequences` sequences."""
        width = max(1, num_sequences // self.num_sequences)
        return [replace(self, enriched=part) for part in self.enriched.split(width)]

    def entries(self, width: int) -> LayerStack:
        """The caches, padded on the left to `width` tokens."""
        padding = (0, 0, width - self.num_tokens, 0)
        return [layer.map(lambda x: F.pad(x, padding)) for layer in mixed_caches(self.kind, self.cache, self.enriched)]

    @property
    def branched(self) -> BranchedPrompt:
        """The cue behind all caches, which share the entries of their layers."""
        prefixes, chosen = self.kind.prefixes(self.cache), self.kind.chosen(self.enriched)
        parts = self.asked.parts
        return BranchedPrompt(prefixes, chosen, self.kind.next_position(self.cache), parts.cue, parts.options)

    def cue_positions(self, width: int) -> tuple[Int[Tensor, " tokens"], Bool[Tensor, " tokens"]]:
        """Positions of a padded cache and the cue behind it, those of the cache being 0; and which are no padding."""
        num_cue = len(self.asked.parts.cue)
        positions = torch.zeros(width + num_cue, dtype=torch.long)
        positions[width:] = self.kind.next_position(self.cache) + torch.arange(num_cue)
        return positions, torch.arange(width + num_cue) >= width - self.num_tokens


@dataclass(frozen=True)
class CacheReader:
    """Reads answers from caches of questions.

    Attributes:
        lm: the model.
        scoring: form of the options; texts of choices are compared per character.
    """

    lm: FrozenLM
    scoring: OptionScoring

    def answers(self, asked: Sequence[CacheRows]) -> list[list[CacheAnswer]]:
        """The answer on each cache, for each of `asked`.

        Caches of all questions are run together, by length: a pass reads all weights of the model, which costs more
        than the few tokens of a cue. Equal subsets are run once.
        """
        distinct, numbers = zip(*(rows.enriched.unique(dim=0, return_inverse=True) for rows in asked), strict=True)
        parts = [
            (number, part)
            for number, (rows, enriched) in enumerate(zip(asked, distinct, strict=True))
            for part in replace(rows, enriched=enriched).split(_MAX_SEQUENCES)
        ]
        found: list[list[CacheAnswer]] = [[] for _ in asked]
        # Sorting is stable: the parts of one question stay in order.
        for together in _passes(sorted(parts, key=lambda one: one[1].num_tokens)):
            read = iter(self._read([part for _, part in together]))
            for number, part in together:
                found[number] += [next(read) for _ in range(len(part))]
        return [[of[n] for n in number.tolist()] for of, number in zip(found, numbers, strict=True)]

    def _read(self, parts: Sequence[CacheRows]) -> list[CacheAnswer]:
        """The answer on each cache of several questions, in one pass."""
        if self.lm.supports_ragged:
            scores = [score for of in score_branches(self.lm, [part.branched for part in parts]) for score in of]
        else:
            scores = self._padded_scores(parts)
        questions = [part.asked.question for part in parts for _ in range(len(part))]
        return [self._answer(*pair) for pair in zip(questions, scores, strict=True)]

    def _padded_scores(self, parts: Sequence[CacheRows]) -> list[OptionScores]:
        """As `score_branches`, with a copy of the entries for each cache."""
        width = max(part.num_tokens for part in parts)
        rows = [part for part in parts for _ in range(len(part))]
        positions, is_real = (torch.stack(of) for of in zip(*(row.cue_positions(width) for row in rows), strict=True))
        ids = torch.zeros_like(positions)
        for row, tokens in zip(rows, ids, strict=True):
            tokens[width:] = torch.tensor(row.asked.parts.cue)
        kv = [
            LayerKV.merge(of_layer, torch.cat)
            for of_layer in zip(*(part.entries(width) for part in parts), strict=True)
        ]
        batch = TokenBatch(ids, is_real, positions).to(self.lm.device)
        return score_options(self.lm, batch, kv, [row.asked.parts.options for row in rows])

    def _answer(self, question: Question, scores: OptionScores) -> CacheAnswer:
        rule = Task("enrichment", wording="paper", mode="letter" if self.scoring == "letter" else "cloze")
        choice = judge_scores(scores, question, rule).choice
        assert choice is not None
        weights = _probabilities(scores.log_probabilities)
        return CacheAnswer(choice, round(sum(weights[n] for n in question.right), 6))


NumberedRows = tuple[int, CacheRows]


def _passes(parts: Sequence[NumberedRows]) -> Iterator[list[NumberedRows]]:
    """Neighbours together, up to the limit of sequences."""
    together: list[NumberedRows] = []
    count = 0
    for number, part in parts:
        needed = len(part) * part.num_sequences
        if together and count + needed > _MAX_SEQUENCES:
            yield together
            together, count = [], 0
        together.append((number, part))
        count += needed
    if together:
        yield together


def _probabilities(log_probabilities: Sequence[float]) -> list[float]:
    highest = max(log_probabilities)
    weights = [math.exp(value - highest) for value in log_probabilities]
    return [weight / sum(weights) for weight in weights]

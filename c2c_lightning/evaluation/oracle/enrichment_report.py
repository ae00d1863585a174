"""Accuracies of the enrichment experiment with intervals and paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from c2c_lightning.analysis.measurement_log import MeasurementLog
from c2c_lightning.analysis.oracle.enrichment import CLEAN, DELETIONS, Deletion
from c2c_lightning.analysis.statistics import compare, wilson_interval
from c2c_lightning.evaluation.oracle.enrichment_run import CHOSEN_ON, FEW_SHOT, EnrichmentRun

Values = Float[np.ndarray, " questions"]


@dataclass(frozen=True)
class Outcome:
    """Answers of one kind to all questions.

    Attributes:
        right: 1 or 0.
        probability: of the right options among all options.
    """

    right: Values
    probability: Values

    def to_json(self, **others: "Outcome") -> dict[str, Any]:
        """Accuracy, and paired tests against `others` by name."""
        n, right = len(self.right), float(self.right.sum())
        tests = {f"against_{name}": compare(self.right.tolist(), other.right.tolist()) for name, other in
                 others.items()}  # fmt: skip
        return {
            "accuracy": right / n,
            "n": n,
            "ci95": list(wilson_interval(right, n)),
            "right_probability": float(self.probability.mean()),
            **tests,
        }


@dataclass(frozen=True)
class EnrichmentResults:
    """The answers of a finished experiment.

    Attributes:
        run: the experiment.
        single: its log of stage 1.
        selected: its log of stage 2.
    """

    run: EnrichmentRun
    single: MeasurementLog
    selected: MeasurementLog

    def to_json(self) -> dict[str, Any]:
        """The report; accuracies in [0, 1]."""
        direct, few_shot = self._outcomes(self.single, CLEAN.name)[0], self._outcomes(self.single, FEW_SHOT.name)[0]
        lengths = [asked.parts for asked in self.run.questions]
        return {
            "version": 1,
            "direct": {
                **direct.to_json(), "cache_tokens": _mean([len(p.header + p.question + p.cue) for p in lengths]),
            },
            "few_shot": {
                **few_shot.to_json(direct=direct),
                "cache_tokens": _mean([len(p.header + p.shots + p.question + p.cue) for p in lengths]),
            },
            "variants": {deletion.name: self._variant(deletion, direct, few_shot) for deletion in DELETIONS},
        }  # fmt: skip

    def _variant(self, deletion: Deletion, direct: Outcome, few_shot: Outcome) -> dict[str, Any]:
        none, oracle, *layers = self._outcomes(self.single, deletion.name)
        return {
            "no_layer": none.to_json(),
            "oracle": {
                **oracle.to_json(direct=direct, few_shot=few_shot), "cache_tokens": self._cache_tokens(deletion),
            },
            "layers": [{"layer": n, **layer.to_json(no_layer=none)} for n, layer in enumerate(layers)],
            "rankings": self.run.rankings(self.single)[deletion.name],
            "selected": self._selected(deletion, none),
        }  # fmt: skip

    def _selected(self, deletion: Deletion, none: Outcome) -> dict[str, Any]:
        """Accuracy of the best and the worst n layers, for n from 1, by the questions that they are chosen on."""
        outcomes, n = self._outcomes(self.selected, deletion.name), self.run.num_selected
        groups = [(way, end) for way in CHOSEN_ON for end in ("best", "worst")]
        found: dict[str, Any] = {way: {} for way in CHOSEN_ON}
        for number, (way, end) in enumerate(groups):
            curve = outcomes[number * n : (number + 1) * n]
            found[way][end] = [outcome.to_json(no_layer=none) for outcome in curve]
        return found

    def _cache_tokens(self, deletion: Deletion) -> float:
        """Mean length of the cache in front of the first answer token."""
        kept = []
        for parts in (asked.parts for asked in self.run.questions):
            before = deletion.num_kept(len(parts.header), len(parts.header) + len(parts.shots))
            kept.append(before + len(parts.question) + len(parts.cue) * (2 if deletion.repeats_cue else 1))
        return _mean(kept)

    def _outcomes(self, log: MeasurementLog, kind: str) -> list[Outcome]:
        right, probability = self.run.right(log, kind), self.run.probability(log, kind)
        return [Outcome(*pair) for pair in zip(right.T, probability.T, strict=True)]


def _mean(values: Sequence[int]) -> float:
    return float(np.mean(values))

"""Gain of C2C against the strength of its sharer (paper, Fig. 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from c2c_lightning.analysis.statistics import bootstrap_interval
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import grouped, scores_of

Scores = Mapping[str, Mapping[int, float]]
"""By responder (receiver, sharer, c2c): the score of each question, by its row."""


@dataclass(frozen=True)
class ScalingPoint:
    """One sharer.

    Attributes:
        name: of the sharer.
        seeds: fusers that were trained from it; scores of a question are their mean.
        n: questions.
        receiver: accuracy of the receiver alone.
        sharer: accuracy of the sharer alone.
        c2c: accuracy of C2C.
        sharer_ci95: bootstrap interval over the questions, likewise below.
        c2c_ci95: of C2C.
        gain: C2C minus receiver.
        gain_ci95: of the gain, paired.
    """

    name: str
    seeds: int
    n: int
    receiver: float
    sharer: float
    c2c: float
    sharer_ci95: tuple[float, float]
    c2c_ci95: tuple[float, float]
    gain: float
    gain_ci95: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def question_scores(predictions: Sequence[Prediction]) -> dict[str, dict[int, float]]:
    """The scores of receiver, sharer and C2C.

    Raises:
        BenchmarkError: one of them did not answer.
    """
    answers = grouped(predictions, "responder")
    if missing := [name for name in ("receiver", "sharer", "c2c") if name not in answers]:
        raise BenchmarkError(f"no answers of {missing[0]!r}: the strength of a sharer needs receiver, sharer and c2c.")
    return {name: scores_of(answers[name]) for name in ("receiver", "sharer", "c2c")}


def scaling_point(name: str, runs: Sequence[Scores]) -> ScalingPoint:
    """The point of one sharer, from the scores of one run for each seed on the same questions."""
    rows = sorted(runs[0]["c2c"])
    means = {
        who: [sum(run[who][row] for run in runs) / len(runs) for row in rows] for who in ("receiver", "sharer", "c2c")
    }
    gains = [fused - alone for fused, alone in zip(means["c2c"], means["receiver"], strict=True)]
    n = len(rows)
    receiver, sharer, c2c = (sum(values) / n for values in means.values())
    intervals = [bootstrap_interval(values) for values in (means["sharer"], means["c2c"], gains)]
    sharer_ci, c2c_ci, gain_ci = intervals
    return ScalingPoint(name, len(runs), n, receiver, sharer, c2c, sharer_ci, c2c_ci, c2c - receiver, gain_ci)


def scaling_table(points: Sequence[ScalingPoint]) -> Table:
    """A line for each sharer."""
    table = Table("sharer", title=f"{points[0].n} questions, {points[0].seeds} seeds", title_justify="left")
    for column in ("receiver, %", "sharer, %", "c2c, %", "95 %", "gain", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in points:
        accuracies = (f"{100 * value:.1f}" for value in (point.receiver, point.sharer, point.c2c))
        c2c, gain = (" ".join(f"{100 * end:.1f}" for end in ci) for ci in (point.c2c_ci95, point.gain_ci95))
        table.add_row(point.name, *accuracies, c2c, f"{100 * point.gain:+.1f}", gain)
    return table

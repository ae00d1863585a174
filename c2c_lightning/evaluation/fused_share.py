"""Accuracy against the share of the prompt that is fused, from the front and from the back (paper, Fig. 11)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from rich.table import Table

from c2c_lightning.analysis.statistics import compare
from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import grouped, scores_of, summarise
from c2c_lightning.responders.partial_fusion import Side
from c2c_lightning.responders.registry import FusedShare


@dataclass(frozen=True)
class SharePoint:
    """One point of a curve.

    Attributes:
        share: of the fused tokens, 0 to 1.
        accuracy: with this share fused.
        ci95: its interval.
        gain: difference to the receiver alone.
        gain_ci95: bootstrap interval over the questions.
    """

    share: float
    accuracy: float
    ci95: tuple[float, float]
    gain: float
    gain_ci95: tuple[float, float]


@dataclass(frozen=True)
class ShareReport:
    """The curves of one benchmark.

    Attributes:
        n: questions.
        curves: by side (`former`, `latter`) the points, with the receiver at 0 and C2C at 1.
        references: accuracy and interval of the receiver and of the sharer.
    """

    n: int
    curves: dict[str, list[SharePoint]]
    references: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def table(self, name: str) -> Table:
        """A line for each share."""
        sharer = self.references.get("sharer")
        note = "" if sharer is None else f", sharer {100 * sharer['accuracy']:.1f} %"
        table = Table("fused", title=f"{name}: {self.n} questions{note}", title_justify="left")
        for side in self.curves:
            table.add_column(f"{side}, %", justify="right")
            table.add_column("95 %", justify="right")
        for points in zip(*self.curves.values(), strict=True):
            cells = [(f"{100 * p.accuracy:.1f}", " ".join(f"{100 * end:.1f}" for end in p.ci95)) for p in points]
            table.add_row(f"{points[0].share:.0%}", *(cell for pair in cells for cell in pair))
        return table


def share_report(predictions: Sequence[Prediction], shares: Sequence[float]) -> ShareReport:
    """The curves from the answers of `receiver`, `c2c` and `FusedShare` responders to one benchmark."""
    answers = grouped(predictions, "responder")
    curves = {}
    for side in get_args(Side):
        names = {share: FusedShare(share, side).name for share in shares} | {0.0: "receiver", 1.0: "c2c"}
        curves[side] = [_point(share, answers, name) for share, name in sorted(names.items())]
    references = {name: _reference(answers[name]) for name in ("receiver", "sharer") if name in answers}
    return ShareReport(len(scores_of(answers["receiver"])), curves, references)


def _point(share: float, answers: Mapping[str, Sequence[Prediction]], name: str) -> SharePoint:
    line, mine, alone = summarise(answers[name]), scores_of(answers[name]), scores_of(answers["receiver"])
    difference = compare(list(mine.values()), [alone[index] for index in mine])
    low, high = difference["ci95"]
    return SharePoint(share, line["accuracy"], tuple(line["ci95"]), difference["difference"], (low, high))


def _reference(answers: Sequence[Prediction]) -> dict[str, Any]:
    line = summarise(answers)
    return {"accuracy": line["accuracy"], "ci95": line["ci95"]}

"""Response length of C2C against receiver and sharer, from the answers of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from c2c_lightning.analysis.statistics import bootstrap_interval, quantiles
from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import grouped


@dataclass(frozen=True)
class ResponseLength:
    """Generated tokens of one responder, up to and including the end token.

    Attributes:
        n: questions.
        mean: tokens of an answer.
        ci95: bootstrap interval of the mean, over the questions.
        median: tokens.
        p90: 90th percentile, in tokens.
        longest: tokens.
        differences: by another responder, the mean difference to it on the same questions with its interval.
    """

    n: int
    mean: float
    ci95: tuple[float, float]
    median: float
    p90: float
    longest: int
    differences: dict[str, tuple[float, float, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def response_lengths(
    predictions: Sequence[Prediction], against: Sequence[str] = ("receiver", "sharer")
) -> dict[str, ResponseLength]:
    """The response lengths of each responder to one benchmark; answers that raised an error are left out.

    Args:
        predictions: the answers.
        against: responders that the others are compared with.
    """
    lengths = {who: _tokens(answers) for who, answers in grouped(predictions, "responder").items()}
    found = {who: values for who, values in lengths.items() if values}
    return {who: _length(who, found, against) for who in found}


def _tokens(answers: Sequence[Prediction]) -> dict[int, float]:
    """Tokens of each question's answer, by its row; the mean over fusers and draws."""
    by_row = grouped([answer for answer in answers if answer.error is None], "index")
    return {row: sum(p.new_tokens for p in rows) / len(rows) for row, rows in by_row.items()}


def _length(who: str, lengths: Mapping[str, Mapping[int, float]], against: Sequence[str]) -> ResponseLength:
    mine = lengths[who]
    differences = {}
    for other in against:
        if other != who and other in lengths:
            pairs = [mine[row] - lengths[other][row] for row in mine if row in lengths[other]]
            if pairs:
                differences[other] = (sum(pairs) / len(pairs), *bootstrap_interval(pairs))
    values = list(mine.values())
    ends = quantiles(values)
    mean = sum(values) / len(values)
    ci95 = bootstrap_interval(values)
    return ResponseLength(len(values), mean, ci95, ends["median"], ends["p90"], round(max(values)), differences)


def length_table(name: str, lengths: Mapping[str, ResponseLength]) -> Table:
    """A line for each responder."""
    table = Table("responder", title=f"{name}: tokens of a response", title_justify="left")
    others = list(dict.fromkeys(other for line in lengths.values() for other in line.differences))
    for column in ("n", "mean", "95 %", "median", "90 %", "longest", *(f"minus {other} (95 %)" for other in others)):
        table.add_column(column, justify="right")
    for who, line in lengths.items():
        spans = [_difference(line.differences.get(other)) for other in others]
        ends = " ".join(f"{end:.1f}" for end in line.ci95)
        cells = (f"{line.mean:.1f}", ends, f"{line.median:.0f}", f"{line.p90:.0f}", str(line.longest))
        table.add_row(who, str(line.n), *cells, *spans)
    return table


def _difference(found: tuple[float, float, float] | None) -> str:
    return "" if found is None else f"{found[0]:+.1f} ({found[1]:+.1f} {found[2]:+.1f})"

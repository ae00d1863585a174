"""Who is right where: the overlap of the right answers of receiver, sharer and a fused responder (paper, Fig. 7)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rich.table import Table

from c2c_lightning.analysis.statistics import wilson_interval
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.prediction_log import Prediction
from c2c_lightning.evaluation.report.aggregate import grouped, scores_of

Right = Mapping[str, set[int]]
"""By role (receiver, sharer, fused): the rows of the questions answered right."""


@dataclass(frozen=True)
class Rate:
    """A proportion of questions.

    Attributes:
        meaning: in words.
        count: questions that count.
        of: all questions of the kind.
        ci95: Wilson's interval.
    """

    meaning: str
    count: int
    of: int
    ci95: tuple[float, float]

    @property
    def value(self) -> float | None:
        """The proportion, None without a question of the kind."""
        return self.count / self.of if self.of else None


@dataclass(frozen=True)
class OverlapReport:
    """The overlap in one benchmark.

    Attributes:
        names: the responder of each role.
        n: questions that all three answered.
        regions: number of questions that exactly a set of roles answers right, as in a Venn diagram.
        rates: by name: accuracies, `kept`, `gained`, `bound` and what is lost.
    """

    names: dict[str, str]
    n: int
    regions: dict[str, int]
    rates: dict[str, Rate]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rates = {name: {**asdict(rate), "value": rate.value} for name, rate in self.rates.items()}
        return {"names": self.names, "n": self.n, "regions": self.regions, "rates": rates}

    def tables(self) -> list[Table]:
        """Rates, and regions."""
        rates = Table("rate", "meaning", title=f"{self.n} questions", title_justify="left")
        for title in ("%", "95 %", "questions"):
            rates.add_column(title, justify="right", no_wrap=True)
        for name, rate in self.rates.items():
            value = "" if rate.value is None else f"{100 * rate.value:.1f}"
            low, high = (f"{100 * end:.1f}" for end in rate.ci95)
            rates.add_row(name, rate.meaning, value, f"{low}-{high}", f"{rate.count}/{rate.of}")
        regions = Table("right are exactly")
        regions.add_column("questions", justify="right", no_wrap=True)
        for region, count in self.regions.items():
            regions.add_row(region, str(count))
        return [rates, regions]


def overlap_report(predictions: Iterable[Prediction], receiver: str, sharer: str, fused: str) -> OverlapReport:
    """The overlap of three responders on the questions that all of them answered.

    A question counts as right where its mean score over fusers and draws is at least 0.5.

    Raises:
        BenchmarkError: a responder that the predictions do not have, or no question that all three answered.
    """
    names = {"receiver": receiver, "sharer": sharer, "fused": fused}
    by_responder = grouped(predictions, "responder")
    missing = [name for name in names.values() if name not in by_responder]
    if missing:
        raise BenchmarkError(f"no answers of {missing[0]!r}. The predictions are of {', '.join(by_responder)}.")
    scores = {role: scores_of(by_responder[name]) for role, name in names.items()}
    questions = set.intersection(*(set(values) for values in scores.values()))
    if not questions:
        raise BenchmarkError(f"no question was answered by all of {', '.join(names.values())}.")
    right = {role: {index for index in questions if values[index] >= 0.5} for role, values in scores.items()}
    return OverlapReport(names, len(questions), venn_regions(right, questions), _rates(right, questions))


def venn_regions(right: Right, questions: set[int]) -> dict[str, int]:
    """Number of questions that exactly a set of roles answers right; `none` for no role."""
    found = Counter("+".join(role for role in right if index in right[role]) for index in questions)
    sets = ["+".join(roles) for size in range(1, len(right) + 1) for roles in combinations(right, size)]
    return {region: found[region] for region in sets} | {"none": found[""]}


def _rates(right: Right, questions: set[int]) -> dict[str, Rate]:
    receiver, sharer, fused = right["receiver"], right["sharer"], right["fused"]

    def rate(meaning: str, counted: set[int], kind: set[int]) -> Rate:
        count = len(counted & kind)
        return Rate(meaning, count, len(kind), wilson_interval(float(count), len(kind)))

    return {
        "receiver": rate("receiver right", receiver, questions),
        "sharer": rate("sharer right", sharer, questions),
        "fused": rate("fused right", fused, questions),
        "bound": rate("receiver or sharer right", receiver | sharer, questions),
        "kept": rate("fused right where the receiver is", fused, receiver),
        "gained": rate("fused right where only the sharer is", fused, sharer - receiver),
        "fused_given_sharer": rate("fused right where the sharer is", fused, sharer),
        "beyond_both": rate("fused right where neither is", fused, questions - receiver - sharer),
    }

"""Who is right where, against the published counts of the paper and by hand."""

import pytest

from c2c_lightning.analysis.statistics import wilson_interval
from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.overlap_report import overlap_report
from c2c_lightning.evaluation.prediction_log import Prediction
from tests.evaluation.report.test_report import answers

#: Fig. 7 of the paper, Qwen3-4B: number of questions that exactly a set of models answers right.
PUBLISHED = {
    "receiver": 206, "sharer": 886, "fused": 157, "receiver+sharer": 235, "receiver+fused": 188, "sharer+fused": 1569,
    "receiver+sharer+fused": 1330, "none": 1061,
}  # fmt: skip


def published() -> list[Prediction]:
    marks = {"receiver": "", "sharer": "", "c2c": ""}
    for region, count in PUBLISHED.items():
        for role, name in (("receiver", "receiver"), ("sharer", "sharer"), ("fused", "c2c")):
            marks[name] += ("1" if role in region.split("+") else "0") * count
    return [answer for name, right in marks.items() for answer in answers(name, right)]


def test_the_published_counts_give_the_published_shares() -> None:
    report = overlap_report(published(), "receiver", "sharer", "c2c")
    assert report.regions == PUBLISHED
    assert (report.rates["receiver"].count, report.rates["sharer"].count, report.rates["fused"].count) == (
        1959,
        4020,
        3244,
    )
    assert report.rates["bound"].count == 4414
    assert report.rates["kept"].value == pytest.approx(0.775, abs=5e-4)
    assert report.rates["fused_given_sharer"].value == pytest.approx(0.7211, abs=5e-5)
    assert report.rates["gained"].value == 1569 / (886 + 1569)
    assert report.rates["kept"].ci95 == wilson_interval(188.0 + 1330, 1959)


def test_only_questions_of_all_three_count() -> None:
    three = [*answers("receiver", "1100"), *answers("sharer", "10"), *answers("c2c", "011")]
    report = overlap_report(three, "receiver", "sharer", "c2c")
    assert (report.n, report.regions["receiver+sharer"], report.regions["receiver+fused"]) == (2, 1, 1)
    assert report.rates["gained"].value is None


def test_missing_responders_are_named() -> None:
    with pytest.raises(BenchmarkError, match=r"no answers of 'c2c'\. The predictions are of receiver, sharer"):
        overlap_report([*answers("receiver", "1"), *answers("sharer", "1")], "receiver", "sharer", "c2c")

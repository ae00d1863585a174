"""Accuracy against the share of the prompt that is fused."""

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.fused_share import share_report
from c2c_lightning.responders.registry import FusedShare
from tests.evaluation.predictions import answered


def test_curves_begin_with_the_receiver_and_end_with_c2c() -> None:
    rights = {
        "receiver": [True, False, False, False],
        "sharer": [True] * 4,
        "c2c": [True, True, True, False],
        "c2c-former=0.5": [False, False, False, False],
        "c2c-latter=0.5": [True, True, False, False],
    }
    report = share_report([p for name, right in rights.items() for p in answered(name, right)], [0.5])
    accuracies = {side: [point.accuracy for point in points] for side, points in report.curves.items()}
    assert accuracies == {"former": [0.25, 0.0, 0.75], "latter": [0.25, 0.5, 0.75]}
    assert [point.gain for point in report.curves["former"]] == [0.0, -0.25, 0.5]
    assert report.references["sharer"]["accuracy"] == 1.0
    for points in report.curves.values():
        for point in points:
            assert point.ci95[0] <= point.accuracy <= point.ci95[1]
            assert point.gain_ci95[0] <= point.gain <= point.gain_ci95[1]
    assert report.n == 4
    assert report.table("facts").row_count == 3


@pytest.mark.parametrize("share", [-0.1, 1.01])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(BenchmarkError, match=r"must be in \[0, 1\]"):
        FusedShare(share)

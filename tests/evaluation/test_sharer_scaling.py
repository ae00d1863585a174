"""Gain against the strength of the sharer."""

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.sharer_scaling import question_scores, scaling_point, scaling_table
from tests.evaluation.predictions import answered


def test_the_point_of_a_sharer_is_the_mean_over_its_seeds() -> None:
    runs = [
        question_scores(answered("receiver", [True, False]) + answered("sharer", [True, True]) + answered("c2c", fused))
        for fused in ([True, True], [True, False])
    ]
    point = scaling_point("strong", runs)
    assert (point.n, point.seeds) == (2, 2)
    assert (point.receiver, point.sharer, point.c2c, point.gain) == (0.5, 1.0, 0.75, 0.25)
    assert point.gain_ci95[0] <= 0.25 <= point.gain_ci95[1]
    assert scaling_table([point]).row_count == 1
    assert point.to_json()["name"] == "strong"


def test_a_missing_responder_is_named() -> None:
    with pytest.raises(BenchmarkError, match="'sharer'"):
        question_scores(answered("receiver", [True]) + answered("c2c", [True]))

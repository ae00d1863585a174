"""Statistics against slow, independent computations and published values."""

import math
import random
from fractions import Fraction

import pytest

from c2c_lightning.analysis.statistics import (
    bootstrap_interval,
    calibration_error,
    compare,
    detectable_difference,
    mcnemar_p_value,
    quantiles,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 17), (500, 1000)])
def test_wilson_ends_solve_the_score_equation(successes: int, n: int) -> None:
    z = 1.959963984540054
    for end in wilson_interval(float(successes), n):
        assert abs(successes / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-7)


def test_wilson_interval_without_questions_is_0_to_1() -> None:
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def slow_mcnemar(a: int, b: int) -> float:
    n = a + b
    terms = [Fraction(math.factorial(n), math.factorial(k) * math.factorial(n - k)) / 2**n for k in range(n + 1)]
    observed = terms[a]
    return float(sum(term for term in terms if term <= observed))


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (5, 5), (2, 9), (30, 12)])
def test_mcnemar_sums_all_splits_as_unlikely_as_the_observed(a: int, b: int) -> None:
    assert mcnemar_p_value(a, b) == pytest.approx(slow_mcnemar(a, b))
    assert mcnemar_p_value(a, b) == mcnemar_p_value(b, a)


def test_mcnemar_of_many_questions_does_not_overflow() -> None:
    assert 0 < mcnemar_p_value(4800, 5200) < 1e-4


def test_bootstrap_matches_drawing_questions_one_by_one() -> None:
    values = [1.0] * 30 + [0.0] * 50 + [-1.0] * 20
    generator = random.Random(0)
    means = sorted(sum(generator.choices(values, k=100)) / 100 for _ in range(4000))
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(means[100], abs=0.015)
    assert high == pytest.approx(means[3900], abs=0.015)
    assert (low, high) == bootstrap_interval(values)


def test_compare_pairs_question_by_question() -> None:
    a, b = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    result = compare(a, b)
    assert (result["a_only"], result["b_only"], result["n"]) == (3, 1, 6)
    assert result["difference"] == pytest.approx(2 / 6)
    assert result["p_value"] == mcnemar_p_value(3, 1)
    with pytest.raises(ValueError, match="6 scores"):
        compare(a, b[:5])


def test_detectable_difference_has_the_given_power() -> None:
    n, discordant = 400, 0.3
    difference = detectable_difference(n, discordant)
    generator, shown = random.Random(1), 0
    a_share = (discordant + difference) / 2
    for _ in range(400):
        draws = [generator.random() for _ in range(n)]
        a_only = sum(x < a_share for x in draws)
        b_only = sum(a_share <= x < discordant for x in draws)
        shown += mcnemar_p_value(a_only, b_only) < 0.05
    assert shown / 400 == pytest.approx(0.8, abs=0.07)


def test_calibration_error_against_bins_by_hand() -> None:
    generator = random.Random(2)
    confidences = [generator.random() for _ in range(500)]
    correct = [generator.random() < c**2 for c in confidences]
    expected = 0.0
    for start in range(10):
        inside = [i for i, c in enumerate(confidences) if start / 10 < c <= (start + 1) / 10]
        gap = sum(confidences[i] - correct[i] for i in inside)
        expected += abs(gap) / 500
    assert calibration_error(confidences, correct) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(calibration_error([], []))


def test_quantiles() -> None:
    assert quantiles([1.0, 2.0, 3.0]) == {"median": 2.0, "p90": pytest.approx(2.8)}

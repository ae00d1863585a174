"""Confidence intervals (95 %), paired tests and power. Pure functions on numbers."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import binary_calibration_error

#: Quantiles of the normal distribution: 95 % of it is within +-1.96, and a power of 80 % needs 0.84.
_Z_95, _Z_POWER = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion of n questions; (0, 1) without questions.

    Unlike the normal interval it is valid near 0 and 1 and for small n.
    """
    if n == 0:
        return 0.0, 1.0
    z, proportion = _Z_95, successes / n
    centre = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(proportion * (1 - proportion) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_p_value(a_only: int, b_only: int) -> float:
    """McNemar's exact test, two-sided: whether the questions that only one gets right are split evenly."""
    n = a_only + b_only
    # Exact integers: for n = 10,000 the terms overflow a float, their quotient does not.
    term, tail = 1, 1
    for k in range(1, min(a_only, b_only) + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, float(2 * tail / 2**n))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (10,000 seeded resamples); (nan, nan) without values."""
    if not len(values):
        return math.nan, math.nan
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    # Resampling n questions is a multinomial draw of the counts of distinct values, which is cheap for any n.
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=10_000)
    low, high = np.quantile(drawn @ distinct / len(values), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_intervals(table: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Percentile bootstrap intervals of means over the same questions (10,000 seeded resamples, the same for all).

    Args:
        table: for each mean its values, one for each question.
    """
    values = np.asarray(table, dtype=float)
    if not values.size:
        return [(math.nan, math.nan)] * len(table)
    n = values.shape[1]
    random, means = np.random.default_rng(0), []
    # In parts: the counts of all resamples of many questions are large.
    for _ in range(10):
        means.append(random.multinomial(n, [1 / n] * n, size=1000) @ values.T / n)
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def compare(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """A comparison in `report.json` of the scores, in [0, 1], of two responders on the same questions.

    The test counts scores of 0.5 or more as right.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} scores cannot be paired with {len(b)}.")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    a_only = sum(x >= 0.5 > y for x, y in zip(a, b, strict=True))
    b_only = sum(y >= 0.5 > x for x, y in zip(a, b, strict=True))
    n = len(a)
    return {
        "difference": sum(differences) / n if n else math.nan,
        "ci95": list(bootstrap_interval(differences)),
        "p_value": mcnemar_p_value(a_only, b_only),
        "a_only": a_only,
        "b_only": b_only,
        "n": n,
        "detectable": detectable_difference(n, (a_only + b_only) / n) if n else math.nan,
    }


def detectable_difference(n: int, discordant: float) -> float:
    """The smallest difference of two accuracies, in [0, 1], that a paired test on n questions detects.

    Solves Connor's (1987) sample size for McNemar's test, n = (z_a sqrt(d) + z_b sqrt(d - D^2))^2 / D^2, for D, where d
    is the proportion of questions that only one of the two gets right. Level 0.05, two-sided; power 0.8.
    """
    # At least one discordant question.
    d = max(discordant, 1 / n)
    low, high = 0.0, d
    # Bisection: D is on both sides of the equation.
    for _ in range(60):
        middle = (low + high) / 2
        needed = _Z_95 * math.sqrt(d) + _Z_POWER * math.sqrt(max(d - middle**2, 0.0))
        low, high = (low, middle) if middle * math.sqrt(n) >= needed else (middle, high)
    return min(high, 1.0)


def calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over ten equal bins of confidence."""
    if not len(confidences):
        return math.nan
    # The event is "right", its probability the confidence; torchmetrics compares both bin by bin.
    given = torch.tensor(confidences, dtype=torch.float32)
    return float(binary_calibration_error(given, torch.tensor(correct, dtype=torch.long), n_bins=10))


def quantiles(values: Sequence[float | int]) -> dict[str, float]:
    """Median and 90th percentile, in the unit of the values."""
    median, p90 = np.quantile(np.asarray(values, dtype=float), [0.5, 0.9])
    return {"median": float(median), "p90": float(p90)}

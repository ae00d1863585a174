"""Confidence intervals, paired tests and power. Pure functions on numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torchmetrics.functional.classification import binary_calibration_error


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; unlike the normal one it is valid near 0 and 1 and for small n.

    Args:
        successes: number of right answers.
        n: number of questions.
        confidence: coverage.

    Returns:
        Lower and upper end; (0, 1) without questions.
    """
    if n == 0:
        return 0.0, 1.0
    z = _quantile(confidence)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def mcnemar_p_value(a_only: int, b_only: int) -> float:
    """McNemar's exact test, two-sided: whether the discordant questions are split evenly.

    Args:
        a_only: questions that only the first gets right.
        b_only: questions that only the second gets right.
    """
    n = a_only + b_only
    # Exact integers: for n = 10,000 the terms overflow a float, their quotient does not.
    term, tail = 1, 1
    for k in range(1, min(a_only, b_only) + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, float(2 * tail / 2**n))


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Args:
        values: one number a question, such as the difference of two scores.
        confidence: coverage.
        resamples: number of resamples.
        seed: of the resamples.

    Returns:
        Lower and upper end; (nan, nan) without values.
    """
    if not len(values):
        return math.nan, math.nan
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    # Resampling n questions is a multinomial draw of the counts of distinct values, which is cheap for any n.
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedComparison:
    """Two responders on the same questions.

    Attributes:
        difference: mean score of the first less that of the second.
        ci95: bootstrap interval of the difference.
        p_value: McNemar's exact test.
        a_only: questions that only the first gets right.
        b_only: questions that only the second gets right.
        n: questions that both answered.
        detectable: the smallest difference that n questions detect with a power of 0.8.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    a_only: int
    b_only: int
    n: int
    detectable: float


def compare(a: Sequence[float], b: Sequence[float], seed: int = 0) -> PairedComparison:
    """Compare two responders on the same questions.

    Args:
        a: scores in [0, 1] of the first, one a question. The test counts a score of 0.5 or more as right.
        b: scores of the second on the same questions.
        seed: of the bootstrap.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} scores cannot be paired with {len(b)}.")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    a_only = sum(x >= 0.5 > y for x, y in zip(a, b, strict=True))
    b_only = sum(y >= 0.5 > x for x, y in zip(a, b, strict=True))
    n = len(a)
    return PairedComparison(
        difference=sum(differences) / n if n else math.nan,
        ci95=bootstrap_interval(differences, seed=seed),
        p_value=mcnemar_p_value(a_only, b_only),
        a_only=a_only,
        b_only=b_only,
        n=n,
        detectable=detectable_difference(n, (a_only + b_only) / n) if n else math.nan,
    )


def detectable_difference(n: int, discordant: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest difference of two accuracies that a paired test on n questions detects.

    Solves Connor's (1987) sample size for McNemar's test, n = (z_a sqrt(d) + z_b sqrt(d - D^2))^2 / D^2, for D.

    Args:
        n: number of questions.
        discordant: share of questions that one of the two gets right and the other wrong (d).
        alpha: level of the two-sided test.
        power: probability of detecting the difference.

    Returns:
        The difference D in [0, 1].
    """
    z_a, z_b = _quantile(1 - alpha), NormalDist().inv_cdf(power)
    # At least one discordant question.
    d = max(discordant, 1 / n)
    low, high = 0.0, d
    for _ in range(60):
        middle = (low + high) / 2
        needed = z_a * math.sqrt(d) + z_b * math.sqrt(max(d - middle**2, 0.0))
        low, high = (low, middle) if middle * math.sqrt(n) >= needed else (middle, high)
    return min(high, 1.0)


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over bins of confidence.

    Args:
        confidences: probability in [0, 1] of the chosen answer, one a question.
        correct: whether it is right.
        bins: number of equal bins.
    """
    if not len(confidences):
        return math.nan
    # The event is "right", its probability the confidence; torchmetrics compares both bin by bin.
    given = torch.tensor(confidences, dtype=torch.float32)
    return float(binary_calibration_error(given, torch.tensor(correct, dtype=torch.long), n_bins=bins))


def quantiles(values: Sequence[float | int]) -> dict[str, float]:
    """Median and 90th percentile, in the unit of the values."""
    median, p90 = np.quantile(np.asarray(values, dtype=float), [0.5, 0.9])
    return {"median": float(median), "p90": float(p90)}


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation over seeds or checkpoints (0 for one)."""
    array = np.asarray(values, dtype=float)
    return {"mean": float(array.mean()), "spread": float(array.std(ddof=1)) if len(array) > 1 else 0.0}

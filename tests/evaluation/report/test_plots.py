"""Plots of a report: legends outside, labels that do not run into each other."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from matplotlib.transforms import Bbox

from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.plots import draw_accuracy, draw_against_time, draw_by_subject, require_pyplot
from tests.evaluation.report.test_report import answers
from tests.evaluation.report.test_terminal import NAMES


def all_right() -> dict[str, Any]:
    """All responders at 100 %, close in time, in eight subjects."""
    predictions = [
        replace(answer, subject=f"high school subject {answer.index % 8}", seconds=0.003 * (1 + number))
        for number, name in enumerate(NAMES)
        for answer in answers(name, "1" * 40)
    ]
    known = {"bench": {"mode": "generate", "scoring": "anchored", "chance": 0.25}}
    section: dict[str, Any] = build_report(predictions, known, {})["benchmarks"]["bench"]
    return section


@pytest.mark.parametrize("draw", [draw_accuracy, draw_against_time, draw_by_subject])
def test_at_100_percent_nothing_is_covered(draw: Callable[[Any, Any], Any]) -> None:
    plt = require_pyplot()
    figure = draw(plt, all_right())
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1
    for labels in (axes.get_yticklabels(), axes.get_xticklabels() if draw is not draw_accuracy else []):
        shown = [label.get_window_extent() for label in labels if label.get_text()]
        assert not any(Bbox.intersection(a, b) for a, b in combinations(shown, 2))
    plt.close(figure)


def test_equal_accuracies_are_drawn_side_by_side() -> None:
    plt = require_pyplot()
    figure = draw_by_subject(plt, all_right())
    points = [tuple(point) for line in figure.axes[0].get_lines() for point in line.get_xydata()]
    assert len(set(points)) == len(points)
    plt.close(figure)

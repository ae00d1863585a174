"""Curves of accuracy: against the share of the prompt that is fused, and against the strength of the sharer."""

from collections.abc import Mapping, Sequence
from typing import Any

from c2c_lightning.analysis.fuser_pictures import new_figure
from c2c_lightning.evaluation.fused_share import ShareReport
from c2c_lightning.evaluation.sharer_scaling import ScalingPoint


def share_figure(reports: Mapping[str, ShareReport]) -> Any:
    """A panel for each benchmark: one curve from the front, one from the back; receiver and sharer as lines."""
    figure, _ = new_figure(1 + 4.5 * len(reports), 4.2)
    for axes, (name, report) in zip(figure.subplots(1, len(reports), squeeze=False)[0], reports.items(), strict=True):
        for side, points in report.curves.items():
            shares = [100 * point.share for point in points]
            axes.errorbar(
                shares, [100 * p.accuracy for p in points], _errors(points), marker="o", capsize=3, label=side
            )
        for who, line in report.references.items():
            axes.axhline(100 * line["accuracy"], linestyle=":", color="black", linewidth=1)
            axes.annotate(
                who, (1.0, 100 * line["accuracy"]), xycoords=("axes fraction", "data"), ha="right", va="bottom"
            )
        axes.set(xlabel="fused share of the prompt, %", ylabel="accuracy, %", title=name, ylim=(0, 105))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return figure


def scaling_figure(points: Sequence[ScalingPoint]) -> Any:
    """Gain over the receiver against the accuracy of the sharer, and both accuracies (paper, Fig. 6)."""
    figure, _ = new_figure(9.5, 4.2)
    gain, both = figure.subplots(1, 2)
    x = [100 * point.sharer for point in points]
    low = [max(0.0, 100 * (p.gain - p.gain_ci95[0])) for p in points]
    high = [max(0.0, 100 * (p.gain_ci95[1] - p.gain)) for p in points]
    gain.errorbar(x, [100 * point.gain for point in points], [low, high], marker="o", capsize=3)
    gain.axhline(0, color="black", linewidth=0.8)
    gain.set(xlabel="accuracy of the sharer, %", ylabel="gain of C2C over the receiver, points")
    for who, values in (("c2c", [p.c2c for p in points]), ("sharer", [p.sharer for p in points]),
                        ("receiver", [p.receiver for p in points])):  # fmt: skip
        both.plot(x, [100 * value for value in values], "o-", label=who)
    both.set(xlabel="accuracy of the sharer, %", ylabel="accuracy, %", ylim=(0, 105))
    both.legend(frameon=False)
    return figure


def _errors(points: Sequence[Any]) -> list[list[float]]:
    """Distances to both ends of the intervals, in points."""
    low = [max(0.0, 100 * (point.accuracy - point.ci95[0])) for point in points]
    return [low, [max(0.0, 100 * (point.ci95[1] - point.accuracy)) for point in points]]

"""Picture of the enrichment experiment: accuracy over single layers, and over the number of layers (paper, Fig. 4)."""

from collections.abc import Sequence
from typing import Any

from c2c_lightning.analysis.fuser_pictures import new_figure

_LINES = {"best": ("C2", "o-"), "worst": ("C3", "s-")}


def enrichment_figure(report: dict[str, Any]) -> Any:
    """A row for each variant: single layers on the left, best and worst n layers on the right."""
    figure, locator = new_figure(11.0, 4.2 * len(report["variants"]))
    grid = figure.subplots(len(report["variants"]), 2, squeeze=False)
    for row, (name, variant) in zip(grid, report["variants"].items(), strict=True):
        _draw_layers(row[0], variant["layers"])
        _draw_selected(row[1], variant)
        for axes in row:
            _draw_levels(axes, report, variant["oracle"])
            axes.set(title=name.replace("_", " "), ylabel="right, %")
            axes.xaxis.set_major_locator(locator())
        # Outside the axes: inside, the legend would hide curves.
        row[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _draw_layers(axes: Any, layers: Sequence[dict[str, Any]]) -> None:
    values = [100 * layer["accuracy"] for layer in layers]
    low = [100 * (layer["accuracy"] - layer["ci95"][0]) for layer in layers]
    high = [100 * (layer["ci95"][1] - layer["accuracy"]) for layer in layers]
    numbers = [layer["layer"] for layer in layers]
    axes.errorbar(numbers, values, yerr=[low, high], fmt="o", color="C0", capsize=2)
    axes.set_xlabel("the only enriched layer (95 % interval)")


def _draw_selected(axes: Any, variant: dict[str, Any]) -> None:
    for way, ends in variant["selected"].items():
        for end, curve in ends.items():
            color, style = _LINES[end]
            numbers, values = range(1, len(curve) + 1), [100 * point["accuracy"] for point in curve]
            is_paper = way == "same_questions"
            label = f"{end} n, chosen on the {way.replace('_', ' ')}"
            axes.plot(numbers, values, style, color=color, alpha=0.4 if is_paper else 1, markersize=4, label=label)
    axes.set_xlabel("enriched layers")


def _draw_levels(axes: Any, report: dict[str, Any], oracle: dict[str, Any]) -> None:
    levels = {"direct": report["direct"], "few-shot": report["few_shot"], "all layers": oracle}
    for style, (name, outcome) in zip((":", "--", "-."), levels.items(), strict=True):
        axes.axhline(100 * outcome["accuracy"], color="black", linestyle=style, linewidth=1, label=name)

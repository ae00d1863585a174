"""Pictures of a fuser: effective ranks per layer, gates and weights per layer and head."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.analysis.effective_rank import RankReport
from c2c_lightning.analysis.gate_report import PARTS, GateReport
from c2c_lightning.errors import MissingExtraError


def rank_figure(report: RankReport) -> Any:
    """Curves as in Fig. 12 of the paper: keys on the left, values on the right."""
    figure, locator = new_figure(10.0, 4.5)
    for axes, part in zip(figure.subplots(1, 2), PARTS, strict=True):
        for cache, by_part in report.ranks.items():
            axes.plot(report.layers, by_part[part], "o-", markersize=4, label=cache)
        axes.set(xlabel="receiver layer", ylabel="effective rank", title=part)
        axes.xaxis.set_major_locator(locator())
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    return figure


def gate_figure(reports: Mapping[str, GateReport], sharer: int) -> Any:
    """Heat maps of gate times mean weight, a row of two for each data set."""
    figure, locator = new_figure(10.0, 1 + 2.5 * len(reports))
    grid = figure.subplots(len(reports), 2, squeeze=False)
    for row, (name, report) in zip(grid, reports.items(), strict=True):
        for axes, part in zip(row, PARTS, strict=True):
            table = report.effective(sharer, part).numpy().T
            image = axes.imshow(table, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
            axes.set(xlabel="receiver layer", ylabel="head", title=f"{name}: {part}")
            axes.xaxis.set_major_locator(locator())
            axes.yaxis.set_major_locator(locator())
    figure.colorbar(image, ax=grid, label="gate times mean weight")
    return figure


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure, and a locator of whole numbers; MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'c2c-lightning[plots]'") from error

    def locator() -> Any:
        return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])

    return Figure(figsize=(width, height), layout="constrained"), locator

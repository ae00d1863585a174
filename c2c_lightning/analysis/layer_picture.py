"""Picture of the parts of layers and heads in the answers."""

from collections.abc import Callable
from functools import partial
from typing import Any

from c2c_lightning.analysis.fuser_pictures import new_figure
from c2c_lightning.analysis.layer_report import LayerReport, PruningList, UnitEffect


def layer_figure(report: LayerReport, pruning: PruningList | None, sharer: int = 0) -> Any:
    """Loss by layer, closed and opened alone; by head; and by number of removed layers."""
    effects = [effect for effect in report.effects if effect.unit.sharer == sharer]
    layers = [effect for effect in effects if effect.unit.part is None and effect.unit.head is None]
    heads = [effect for effect in effects if effect.unit.head is not None]
    panels: list[Callable[[Any], None]] = [partial(_draw_layers, layers=layers)] if layers else []
    panels += [partial(_draw_heads, heads=heads)] if heads else []
    panels += [partial(_draw_pruning, pruning=pruning)] if pruning is not None and pruning.steps else []
    figure, locator = new_figure(5.0 * max(1, len(panels)), 4.5)
    for axes, draw in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels, strict=False):
        draw(axes)
        axes.xaxis.set_major_locator(locator())
    return figure


def _draw_layers(axes: Any, layers: list[UnitEffect]) -> None:
    for kind, shift, label in (("closed", -0.2, "closed alone"), ("opened", 0.2, "opened alone")):
        changes = [getattr(effect, kind) for effect in layers]
        values = [change.loss for change in changes]
        low = [max(0.0, change.loss - change.loss_ci95[0]) for change in changes]
        high = [max(0.0, change.loss_ci95[1] - change.loss) for change in changes]
        places = [effect.unit.layer + shift for effect in layers]
        axes.bar(places, values, 0.4, yerr=[low, high], capsize=2, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="receiver layer", ylabel="change of the loss, nats per token")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)


def _draw_heads(axes: Any, heads: list[UnitEffect]) -> None:
    width = max(effect.unit.layer for effect in heads) + 1
    table = [[float("nan")] * width for _ in range(1 + max(effect.unit.head or 0 for effect in heads))]
    for effect in heads:
        table[effect.unit.head or 0][effect.unit.layer] = effect.closed.loss
    limit = max(abs(effect.closed.loss) for effect in heads) or 1.0
    image = axes.imshow(table, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set(xlabel="receiver layer", ylabel="KV head", title="closed alone")
    axes.set_yticks(range(len(table)))
    axes.figure.colorbar(image, ax=axes, label="change of the loss, nats per token")


def _draw_pruning(axes: Any, pruning: PruningList) -> None:
    counts = range(1, len(pruning.steps) + 1)
    changes = [step.change for step in pruning.steps]
    axes.plot(counts, [change.loss for change in changes], "o-", markersize=4)
    axes.fill_between(counts, *zip(*(change.loss_ci95 for change in changes), strict=True), alpha=0.2)
    axes.axvline(pruning.removed + 0.5, linestyle=":", color="black", label="removed without harm")
    axes.set(xlabel="layers removed, least missed first", ylabel="change of the loss, nats per token")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)

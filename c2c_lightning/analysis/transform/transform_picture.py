"""Picture of a transformation: t-SNE as in Fig. 3 of the paper, and the error of each layer."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.analysis.fuser_pictures import new_figure
from c2c_lightning.analysis.transform.entry_mixing import embed
from c2c_lightning.analysis.transform.model_pair import PARTS, Part
from c2c_lightning.analysis.transform.sample_scores import SampleScores, Source
from c2c_lightning.analysis.transform.transform_model import MAPS

CLOUDS: dict[Source, str] = {"sharer": "sharer", "receiver": "receiver (target)", "mlp": "transformed"}
"""The sets of points, by their names in the legend."""

COLOURS = {"sharer": "C0", "receiver": "C1", "mlp": "C2", "ridge": "C3", "mean": "0.6"}
"""Of sets of points and of maps."""

TITLES = {"keys": "keys", "position_free_keys": "keys without position", "values": "values"}


def embed_samples(scores: SampleScores, perplexity: float, seed: int) -> dict[Part, dict[Source, Any]]:
    """The t-SNE plane of each part: points (n, 2) of the last pair of layers, one for each sample."""
    return {
        part: dict(zip(CLOUDS, embed([scores.pooled[c, part] for c in CLOUDS], perplexity, seed), strict=True))
        for part in PARTS
    }


def transform_figure(planes: Mapping[Part, Mapping[Source, Any]], report: Mapping[str, Any]) -> Any:
    """First row: the planes; second row: relative error of each map by receiver layer, with intervals."""
    figure, locator = new_figure(11.0, 7.0)
    upper, lower = figure.subplots(2, 3)
    receiver_layers = [n for n, _ in report["layers"]]
    for axes, part in zip(upper, PARTS, strict=True):
        for cloud, label in CLOUDS.items():
            axes.scatter(*planes[part][cloud].T, s=6, alpha=0.6, color=COLOURS[cloud], label=label)
        axes.set(title=f"{TITLES[part]}, layer {receiver_layers[-1]}", xticks=[], yticks=[])
    for axes, part in zip(lower, PARTS, strict=True):
        for name in MAPS:
            found = report["maps"][name]["entries"][part]["relative_error"]["layers"]
            means = [value["mean"] for value in found]
            spread = [[abs(value["ci95"][side] - value["mean"]) for value in found] for side in (0, 1)]
            axes.errorbar(receiver_layers, means, spread, fmt="o-", markersize=3, color=COLOURS[name], label=name)
        axes.set(xlabel="receiver layer", ylabel="squared error / that of the mean", ylim=(0, None))
        axes.xaxis.set_major_locator(locator())
    # Outside: points and curves may be anywhere.
    for axes in (upper[1], lower[1]):
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.04 if axes is upper[1] else -0.16), ncols=3, frameon=False
        )
    return figure

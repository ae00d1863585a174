"""Tables of a transformation for the terminal, within 80 columns; intervals are half widths of 95 %."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from c2c_lightning.analysis.transform.model_pair import PARTS
from c2c_lightning.analysis.transform.sample_scores import KEY_PARTS, SCOPES
from c2c_lightning.analysis.transform.transform_model import MAPS

METRICS = {
    "relative_error": "squared error",
    "cosine": "cosine",
    "neighbours": "neigh- bours",
    "classifier": "classi- fier",
}
"""Scores of entries, by their headings."""

SHORT = {"keys": "keys", "position_free_keys": "no rotary", "values": "values"}

NOTES = (
    "squared error: 1 is that of the mean. Neighbours: share that are of the other set; classifier: accuracy; both 0.5 "
    "for sets that cannot be distinguished. Attention: cosine of attention outputs."
)


def entry_table(report: Mapping[str, Any], which: str) -> Table:
    """Distances to the receiver's entries, for the `last` layer or the `mean` over layers."""
    layers = report["layers"]
    where = f"layer {layers[-1][1]} -> {layers[-1][0]}" if which == "last" else f"mean over {len(layers)} layers"
    table = _table(f"{where}, {report['samples']} held-out samples")
    for heading in (*METRICS.values(), "atten- tion"):
        table.add_column(heading, justify="right", max_width=10)
    for name in MAPS:
        found = report["maps"][name]
        for part in PARTS:
            cells = [_cell(found["entries"][part][metric][which]) for metric in METRICS]
            attention = _cell(found["attention"][part][which]) if part in KEY_PARTS else ""
            table.add_row(name if part == PARTS[0] else "", SHORT[part], *cells, attention)
    return table


def loss_table(report: Mapping[str, Any]) -> Table:
    """The receiver's loss on its own entries, and by how much transformed entries raise it."""
    table = _table(f"receiver: {_cell(report['receiver_loss'])} nats per response token")
    for scope in SCOPES:
        table.add_column(f"change, {scope.replace('_', ' ')}", justify="right")
    for name in MAPS:
        for part in KEY_PARTS:
            changes = report["maps"][name]["loss_change"][part]
            label = name if part == KEY_PARTS[0] else ""
            table.add_row(label, SHORT[part], *(_cell(changes[scope], "+") for scope in SCOPES))
    return table


def _table(title: str) -> Table:
    return Table("map", "part", title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _cell(summary: Mapping[str, Any], sign: str = "") -> str:
    low, high = summary["ci95"]
    return f"{summary['mean']:{sign}.3f}±" + f"{(high - low) / 2:.3f}".removeprefix("0")

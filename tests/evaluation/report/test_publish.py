"""Publication of a report: plots, loggers with and without tables, W&B offline."""

from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.evaluation.report.plots import _CIRCLES, _RADIUS, _position, draw
from c2c_lightning.evaluation.report.publish import publish
from tests.evaluation.report.test_report import full_report


def test_four_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = full_report()
    lines = report["benchmarks"]["bench"]["responders"]
    for line in lines.values():
        line["by_subject"] = {subject: {"accuracy": 0.5, "n": 20} for subject in ("law", "maths")}
    files = draw(report, tmp_path)
    kinds = ("accuracy", "accuracy_against_time", "by_subject", "who_is_right")
    assert [file.name for file in files] == [f"bench_{kind}.png" for kind in kinds]
    assert all(file.stat().st_size > 1000 for file in files)


@pytest.mark.parametrize("names", [("receiver", "c2c"), ("receiver", "sharer", "c2c")])
def test_counts_of_the_venn_diagram_are_inside_their_regions(names: tuple[str, ...]) -> None:
    circles = dict(zip(names, _CIRCLES[len(names)], strict=True))
    for mask in range(1, 2 ** len(names)):
        inside = {name for n, name in enumerate(names) if mask >> n & 1}
        x, y = _position("+".join(name for name in names if name in inside), circles)
        found = {name for name, (a, b) in circles.items() if (x - a) ** 2 + (y - b) ** 2 < _RADIUS**2}
        assert found == inside
    x, y = _position("none", circles)
    assert all((x - a) ** 2 + (y - b) ** 2 > _RADIUS**2 for a, b in circles.values())


class Plain:
    """A logger without tables."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep them."""
        self.metrics |= metrics


class Rich(Plain):
    """A logger with tables and images, as W&B's."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, Any] = {}
        self.images: dict[str, Any] = {}

    def log_table(self, key: str, columns: list[str], data: list[list[str]]) -> None:
        """Keep it."""
        assert all(len(row) == len(columns) for row in data)
        self.tables[key] = data

    def log_image(self, key: str, images: list[str]) -> None:
        """Keep it."""
        self.images[key] = images


def test_loggers_get_metrics_tables_and_images_they_support(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plain, rich = Plain(), Rich()
    publish(full_report(), tmp_path, [plain, rich])
    assert plain.metrics["bench/c2c/accuracy"] == rich.metrics["bench/c2c/accuracy"] == 0.75
    assert [row[0] for row in rich.tables["bench/responders"]][:2] == ["receiver", "sharer"]
    assert Path(rich.images["plots/bench_accuracy"][0]).is_file()


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("matplotlib")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    publish(full_report(), tmp_path, [WandbLogger(save_dir=str(tmp_path))])
    summary = dict(wandb.run.summary)
    wandb.finish()
    assert summary["bench/c2c/accuracy"] == 0.75
    assert {"bench/responders", "plots/bench_accuracy", "plots/bench_who_is_right"} <= set(summary)

"""What is logged, drawn and written around training."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.callbacks.gate_monitor import gate_rows
from c2c_lightning.training.callbacks.run_picture import RunPicture
from tests.training.runs import loader, module, trainer


class Tables(Logger):
    """Keeps tables, as W&B does."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[str], list[Any]]] = []
        self.metrics: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "tables"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics |= metrics

    def log_table(self, key: str, columns: list[str], data: list[Any]) -> None:
        self.tables.append((key, columns, data))


@pytest.fixture(scope="module")
def run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tables]:
    """Four steps with everything that writes."""
    folder, tables = tmp_path_factory.mktemp("run"), Tables()
    made = module(models, gate_init=0.5)
    callbacks = [ExportFuser(str(folder / "fuser")), RunPicture(str(folder / "training.png"))]
    loggers = [CSVLogger(folder, name="", version=""), tables]
    fit = trainer(folder, 4, callbacks, logger=loggers, val_check_interval=2)
    fit.fit(made, loader(made, [[1, 2], [3], [4], [5]]), loader(made, [[6, 7]]))
    return folder, tables


def test_keys_of_the_log(run: tuple[Path, Tables]) -> None:
    with (run[0] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name, value in row.items() if value}
    assert {
        "train/loss",
        "val/loss",
        "val/loss_mismatched",
        "val/loss_receiver",
        "gate/open_fraction",
        "gate/temperature",
        "throughput/samples_per_second",
        "throughput/tokens_per_second",
    } <= columns
    assert {f"gate/sharer_0/layer_0{layer}/{part}" for layer in range(4) for part in ("key", "value")} <= columns
    temperatures = [float(row["gate/temperature"]) for row in rows if row["gate/temperature"]]
    assert temperatures == sorted(temperatures, reverse=True)
    assert all(float(row["gate/open_fraction"]) == 1.0 for row in rows if row["gate/open_fraction"])
    assert all(float(row["throughput/samples_per_second"]) > 0 for row in rows if row["throughput/samples_per_second"])


def test_gates_per_layer_as_a_table(run: tuple[Path, Tables]) -> None:
    key, columns, data = run[1].tables[-1]
    assert (key, columns) == ("gate/layers", ["sharer", "layer", "part", "logit"])
    assert len(data) == 4 * 2
    assert len(run[1].tables) == 2


def test_layers_without_a_gate_have_no_row() -> None:
    logits = torch.tensor([[[1.0, torch.nan], [-1.0, torch.nan]]])
    assert gate_rows(logits) == [(0, 0, "key", 1.0), (0, 0, "value", -1.0)]


def test_the_picture_and_the_fuser(run: tuple[Path, Tables]) -> None:
    folder = run[0]
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    model = C2CModel.from_pretrained(folder / "fuser")
    record = json.loads((folder / "fuser" / "fuser_config.json").read_text())["training"]
    assert record["steps"] == 4
    assert record["settings"]["learning_rate"] == pytest.approx(0.01)
    assert record["results"]["val/loss"] > 0
    assert model.fuser.config.gate_init == 0.5
    card = (folder / "fuser" / "README.md").read_text()
    assert "AdamW" in card
    assert "val/loss" in card


def test_without_matplotlib_there_is_a_message_and_no_picture(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    made = module(models)
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, 1, [RunPicture(str(tmp_path / "x.png"))]).fit(made, loader(made, [[1]]))
    assert "pip install 'c2c-lightning[plots]'" in caplog.text
    assert not (tmp_path / "x.png").exists()


def test_a_trial_writes_nothing(models: Path, tmp_path: Path) -> None:
    made = module(models)
    callbacks = [ExportFuser(str(tmp_path / "fuser")), RunPicture(str(tmp_path / "x.png"))]
    trainer(tmp_path, 1, callbacks, fast_dev_run=True).fit(made, loader(made, [[1]]))
    assert list(tmp_path.iterdir()) == []

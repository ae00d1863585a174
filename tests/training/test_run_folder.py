"""One folder per run: a second run does not mix with the first, a resumed one continues, and one setting moves all."""

import csv
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from c2c_lightning.cli import main
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.checkpoint import Checkpoint
from c2c_lightning.training.checkpoint_io import AtomicCheckpointIO
from c2c_lightning.training.metrics_file import MetricsFile
from c2c_lightning.training.module import C2CModule
from tests.training.runs import loader, module, trainer

ROOT = Path(__file__).parents[2]
FEWER = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--data.batch_size", "8"]
ROWS = [[1, 2], [3], [4], [5], [6], [7]]


def fit(
    models: Path,
    folder: Path,
    steps: int,
    ckpt_path: Path | None = None,
    callbacks: list[Callback] | None = None,
    **settings: Any,
) -> C2CModule:
    """A run with all output in its folder."""
    made = module(models, **settings)
    written = [Checkpoint(save_last=True, every_n_train_steps=2), ExportFuser(), *(callbacks or [])]
    options = {"enable_checkpointing": True, "logger": MetricsFile(str(folder)), "plugins": [AtomicCheckpointIO()]}
    run = trainer(folder, steps, written, **options)  # type: ignore[arg-type]
    run.fit(made, loader(made, ROWS), loader(made, [[8, 9]]), ckpt_path=None if ckpt_path is None else str(ckpt_path))
    return made


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def steps_logged(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_a_second_run_moves_the_first_aside(models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(models, tmp_path, 4)
    first = weights(tmp_path / "checkpoints" / "last.ckpt")
    with caplog.at_level(logging.WARNING):
        second = fit(models, tmp_path, 2, lr=0.5)
    assert "output of an earlier run" in caplog.text
    assert "--trainer.default_root_dir" in caplog.text
    files = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert files == {"last.ckpt", "epoch=0-step=2.ckpt"}
    last = weights(tmp_path / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, last[name]) for name, value in second.state_dict().items())
    earlier = tmp_path / "previous" / "1"
    assert {path.name for path in earlier.iterdir()} == {"checkpoints", "fuser", "metrics.csv"}
    moved = weights(earlier / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, moved[name]) for name, value in first.items())
    assert steps_logged(tmp_path) == [0, 1]
    assert steps_logged(earlier) == [0, 1, 2, 3]


def test_a_resumed_run_continues_in_place_and_keeps_its_metrics(models: Path, tmp_path: Path) -> None:
    fit(models, tmp_path, 5)
    fit(models, tmp_path, 6, tmp_path / "checkpoints" / "epoch=0-step=4.ckpt")
    assert not (tmp_path / "previous").exists()
    # The row of step 4 was logged after the checkpoint of step 4, and is logged again.
    assert steps_logged(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_run_resumed_from_elsewhere_moves_the_folders_run_aside(models: Path, tmp_path: Path) -> None:
    fit(models, tmp_path / "a", 2)
    fit(models, tmp_path / "b", 2)
    fit(models, tmp_path / "b", 4, tmp_path / "a" / "checkpoints" / "last.ckpt")
    assert (tmp_path / "b" / "previous" / "1" / "checkpoints" / "last.ckpt").exists()
    fit(models, tmp_path / "b", 4, tmp_path / "b" / "previous" / "1" / "checkpoints" / "last.ckpt")
    assert (tmp_path / "b" / "previous" / "2" / "checkpoints" / "last.ckpt").exists()


def test_nothing_else_in_the_folder_is_touched(models: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    (tmp_path / "data.jsonl").write_text("mine")
    for _ in range(2):
        fit(models, tmp_path, 2)
    assert (tmp_path / "checkpoints" / "notes.txt").exists()
    assert (tmp_path / "data.jsonl").exists()


def test_a_run_of_no_steps_replaces_no_fuser(models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(models, tmp_path / "a", 2)
    first = (tmp_path / "a" / "fuser" / "model.safetensors").read_bytes()
    fit(models, tmp_path / "a", 0)
    assert "No step was trained" in caplog.text
    fit(models, tmp_path / "b", 2, lr=0.5)
    fit(models, tmp_path / "a", 2, tmp_path / "b" / "checkpoints" / "last.ckpt")
    assert (tmp_path / "a" / "fuser" / "model.safetensors").read_bytes() == first


def test_resuming_a_finished_run_writes_a_missing_fuser(models: Path, tmp_path: Path) -> None:
    fit(models, tmp_path, 2)
    shutil.rmtree(tmp_path / "fuser")
    fit(models, tmp_path, 2, tmp_path / "checkpoints" / "last.ckpt")
    assert (tmp_path / "fuser" / "model.safetensors").exists()


@pytest.mark.slow
def test_one_setting_moves_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = [
        "--config",
        str(ROOT / "configs" / "fit" / "quickstart.yaml"),
        "--data.cache_dir",
        str(tmp_path / "cache"),
    ]
    main(["fit", *config, *FEWER, "--trainer.default_root_dir", "runs/try"])
    written = {path.name for path in (tmp_path / "runs" / "try").iterdir()}
    assert written == {"checkpoints", "fuser", "metrics.csv", "training.png", "fit_config.yaml"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"try"}


def test_csv_logger_of_an_old_configuration_keeps_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["fit", "--config", str(ROOT / "tests" / "conf" / "fit.yaml"), "--trainer.log_every_n_steps", "1"]
    main(config)
    main([*config, "--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.max_steps", "4"])
    assert steps_logged(tmp_path / "run") == [0, 1, 2, 3]

"""Logger overlays: W&B without an account, TensorBoard, and neither installed."""

import sys
from pathlib import Path

import pytest
from lightning.fabric.utilities.imports import RequirementCache

from c2c_lightning.cli import main

TESTS = Path(__file__).parent.parent
FIT = str(TESTS / "conf" / "fit.yaml")
LOGGERS = TESTS.parent / "configs" / "logger"


def fit(overlay: str) -> None:
    main(["fit", "--config", FIT, "--config", str(LOGGERS / f"{overlay}.yaml"), "--trainer.callbacks", "null"])


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit("wandb")
    config = dict(wandb.run.config)
    assert config["cli"]["trainer"]["max_steps"] == 3
    summary = dict(wandb.run.summary)
    assert {"val/loss", "val/loss_receiver", "gate/layers", "gate/sharer_0/layer_00/key"} <= set(summary)
    wandb.finish()
    # One run: `wandb sync` sends it later.
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1
    fit("wandb")  # a second run in the same folder
    wandb.finish()


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    fit("tensorboard")
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.*"))


def test_without_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    logger = sys.modules["lightning.pytorch.loggers.wandb"]
    monkeypatch.setattr(logger, "_WANDB_AVAILABLE", RequirementCache("wandb>=9999"))
    with pytest.raises(SystemExit) as exit_:
        fit("wandb")
    assert exit_.value.code == 1
    assert "pip install 'c2c-lightning[wandb]'" in capsys.readouterr().err

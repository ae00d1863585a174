"""When checkpoints are written: `last` is the newest state, and none skips a validation."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from c2c_lightning.training.checkpoint import Checkpoint
from tests.training.runs import loader, module, trainer

ROWS = [[1, 2], [3], [4], [5], [6], [7]]


class WorseAndWorse(Callback):
    """Replaces the validation loss by one that grows."""

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("val/worse", float(trainer.global_step))


def run(models: Path, folder: Path, steps: int = 6, interval: int = 2, **choices: Any) -> Checkpoint:
    made = module(models)
    checkpoint = Checkpoint(**choices)
    settings: dict[str, Any] = {"enable_checkpointing": True, "val_check_interval": interval}
    fit = trainer(folder, steps, [WorseAndWorse(), checkpoint], **settings)
    fit.fit(made, loader(made, ROWS), loader(made, [[8, 9]]))
    return checkpoint


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


@pytest.mark.parametrize("save_last", [True, "link"])
def test_last_is_the_newest_state_when_the_monitored_loss_grows(save_last: Any, models: Path, tmp_path: Path) -> None:
    checkpoint = run(models, tmp_path, monitor="val/worse", save_last=save_last)
    folder = tmp_path / "checkpoints"
    assert step_of(folder / "last.ckpt") == 6
    assert step_of(Path(checkpoint.best_model_path)) == 2
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", Path(checkpoint.best_model_path).name}


@pytest.mark.parametrize("choices", [{"every_n_train_steps": 4, "save_top_k": -1}, {"every_n_train_steps": 50}])
def test_last_is_the_state_at_the_end_of_training(choices: dict[str, Any], models: Path, tmp_path: Path) -> None:
    run(models, tmp_path, steps=5, interval=6, save_last=True, **choices)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 5


class Events(Callback):
    """Keeps the order of saves and validations."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.events.append(f"validation {trainer.global_step}")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.events.append(f"save {trainer.global_step}")


@pytest.mark.parametrize("interval", [2, 1.0])
def test_a_checkpoint_of_a_step_with_a_validation_follows_it(interval: Any, models: Path, tmp_path: Path) -> None:
    """A kill between the two would otherwise skip that validation for good."""
    events, made = Events(), module(models)
    settings: dict[str, Any] = {"enable_checkpointing": True, "val_check_interval": interval}
    checkpoint = Checkpoint(every_n_train_steps=2, save_top_k=-1)
    fit = trainer(tmp_path, 6, [events, checkpoint], **settings)
    fit.fit(made, loader(made, ROWS), loader(made, [[8, 9]]))
    validated = [2, 4, 6] if interval == 2 else [6]
    expected = [
        text for step in (2, 4, 6) for text in ([f"validation {step}"] * (step in validated) + [f"save {step}"])
    ]
    assert events.events == expected

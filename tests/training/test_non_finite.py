"""NaN and infinity in training: named, never in a checkpoint, and skipped where that is chosen."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from c2c_lightning.errors import FuserFormatError, NonFiniteError
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.callbacks.non_finite_guard import NonFiniteGuard
from c2c_lightning.training.checkpoint import Checkpoint
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, loader, module, trainer

ROWS = [[1, 2], [3], [4], [5]]


class BrokenGradient(Callback):
    """Puts a value into the gradient of one step, before the guard looks."""

    def __init__(self, step: int, value: float = float("nan")) -> None:
        self.step, self.value = step, value

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step + 1 == self.step:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.flatten()[0] = self.value  # type: ignore[union-attr]


class BrokenLoss(C2CModule):
    """A module whose loss is infinite in the third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * float("inf") if batch_idx == 2 else loss


def weights(made: C2CModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in made.named_parameters()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_stops_the_run_with_its_step_and_rows(value: float, models: Path, tmp_path: Path) -> None:
    made = module(models)
    checkpoint = Checkpoint(every_n_train_steps=1, save_top_k=-1, save_last=True)
    fit = trainer(tmp_path, 4, [BrokenGradient(3, value), checkpoint, ExportFuser()], enable_checkpointing=True)
    with pytest.raises(NonFiniteError, match=r"optimizer step 3 the gradient is not finite.*\n.*4\?") as raised:
        fit.fit(made, loader(made, ROWS))
    assert str(raised.value).count("\n") == 1
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(value.isfinite().all() for value in weights(made).values())
    assert not (tmp_path / "fuser").exists()


def test_a_loss_is_named(models: Path, tmp_path: Path) -> None:
    plain = module(models)
    made = BrokenLoss(plain.receiver_spec, plain.sharer_specs, plain.fuser_config)
    with pytest.raises(NonFiniteError, match=r"step 3 the loss is inf"):
        trainer(tmp_path, 4).fit(made, loader(made, ROWS))


def test_a_skipped_step_changes_nothing_and_is_counted(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class States(Callback):
        def __init__(self) -> None:
            self.states: list[dict[str, Tensor]] = []

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
            self.states.append(weights(pl_module))

    made, states = module(models, settings={"non_finite": "skip"}), States()
    fit = trainer(tmp_path, 4, [BrokenGradient(3), states])
    with caplog.at_level(logging.WARNING):
        fit.fit(made, loader(made, ROWS))
    second, third, fourth = states.states[1:]
    assert all(torch.equal(value, third[name]) for name, value in second.items())
    assert not all(torch.equal(value, fourth[name]) for name, value in third.items())
    assert "1 optimizer steps with a non-finite gradient were skipped" in caplog.text


def test_results_that_stay_on_the_device_are_read_when_values_are_logged(models: Path, tmp_path: Path) -> None:
    """As on a GPU: no step waits, and the message names the step and the rows all the same."""

    class Deferred(NonFiniteGuard):
        def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
            step = (trainer.global_step + 1, self._batches, self._losses)
            self._batches, self._losses = [], []
            self._unread.append((step, torch.tensor(step[0] != 2)))

    made, losses = module(models), Losses()
    guard = Deferred()
    fit = trainer(tmp_path, 4, [losses, guard], log_every_n_steps=4)
    made.configure_callbacks = lambda: []  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=r"optimizer step 2.*\n.*3\?"):
        fit.fit(made, loader(made, ROWS))
    assert len(losses.losses) == 4


def test_non_finite_weights_are_not_written(models: Path, tmp_path: Path) -> None:
    made = module(models)
    fit = trainer(tmp_path, 1, [ExportFuser()])
    fit.fit(made, loader(made, ROWS))
    next(made.parameters()).data.flatten()[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"After optimizer step 1, 1 tensors.*model\.fuser"):
        fit.save_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "x.ckpt").exists()
    with pytest.raises(FuserFormatError, match="finite"):
        ExportFuser(str(tmp_path / "other")).on_fit_end(fit, made)


def test_a_validation_with_nan_says_so(models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = module(models)
    made.configure_model()
    next(made.parameters()).data.flatten()[0] = torch.nan
    with caplog.at_level(logging.WARNING):
        result = trainer(tmp_path, 1).validate(made, loader(made, ROWS), verbose=False)[0]
    assert result["val/loss"] != result["val/loss"]
    assert "val/loss is nan" in caplog.text
    assert result["val/loss_receiver"] > 0

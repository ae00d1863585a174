"""A fuser trained on mismatched caches sees the caches of other rows, in training alone."""

from pathlib import Path

import lightning as L
import pytest
import torch

from c2c_lightning.data.mismatch import swap_rows
from c2c_lightning.training.baselines import MismatchedCaches
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, batch, loader, module, trainer

QUIET = {"gate_noise": "none"}


def made(models: Path) -> C2CModule:
    L.seed_everything(1, verbose=False)
    return module(models, settings={"baseline": MismatchedCaches()}, plain=True, **QUIET)


def test_training_reads_other_rows_and_validation_the_right_ones(models: Path, tmp_path: Path) -> None:
    trained, losses = made(models), Losses()
    trained.configure_model()
    rows = batch(trained, [3, 14, 7])
    with torch.no_grad():
        right, swapped = (float(trained.model.batch_loss(b)) for b in (rows, swap_rows(rows)))
    run = trainer(tmp_path, 1, [losses], limit_val_batches=1, val_check_interval=1)
    run.fit(trained, loader(trained, [[3, 14, 7]]), loader(trained, [[3, 14, 7]]))
    assert losses.losses == pytest.approx([swapped])
    assert abs(right - swapped) > 1e-3
    with torch.no_grad():
        after = float(trained.model.batch_loss(rows) / rows.response_mask.sum())
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(after)


def test_a_row_without_another_one_is_left_out(models: Path, tmp_path: Path) -> None:
    trained, losses = made(models), Losses()
    with pytest.warns(UserWarning, match=r"Raise `data\.batch_size`"):
        trainer(tmp_path, 1, [losses]).fit(trained, loader(trained, [[3]]))
    assert losses.losses == [0.0]


def test_a_checkpoint_remembers_it(models: Path, tmp_path: Path) -> None:
    trained = made(models)
    run = trainer(tmp_path, 1)
    run.fit(trained, loader(trained, [[3, 14]]))
    run.save_checkpoint(tmp_path / "one.ckpt")
    assert C2CModule.load_from_checkpoint(tmp_path / "one.ckpt").baseline == MismatchedCaches()


def test_kept_caches_change_nothing(models: Path, tmp_path: Path) -> None:
    losses = []
    for where in (None, "memory"):
        L.seed_everything(1, verbose=False)
        settings = {"baseline": MismatchedCaches(), "cache_frozen": where}
        trained, seen = module(models, settings=settings, plain=True, **QUIET), Losses()
        rows = [[3, 14, 7], [1, 2], [14, 3, 7], [2, 1]]
        trainer(tmp_path, 4, [seen]).fit(trained, loader(trained, rows))
        losses.append(seen.losses)
    # Up to rounding: kept caches were computed in other batches.
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)

"""A training that starts from the weights of a fuser."""

from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.errors import PairMismatchError
from c2c_lightning.export.format import save_fuser
from c2c_lightning.training.build_model import describe
from c2c_lightning.training.callbacks.initial_fuser import InitialFuser
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, loader, module, save_models, trainer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def saved(trained: C2CModule, folder: Path) -> str:
    return str(save_fuser(folder / "fuser", trained.model.fuser, describe(trained.model)))


def test_the_first_loss_is_that_of_the_given_fuser(models: Path, tmp_path: Path) -> None:
    first = module(models, gate_noise="none")
    trainer(tmp_path, 3).fit(first, loader(first, [[0, 1], [2, 3], [4, 5]]))
    expected = float(first.model.batch_loss(next(iter(loader(first, [[6, 7]])))).detach())
    second, losses = module(models, lr=0.0, gate_noise="none"), Losses()
    callbacks = [InitialFuser(saved(first, tmp_path)), losses]
    trainer(tmp_path, 1, callbacks).fit(second, loader(second, [[6, 7]]))
    assert losses.losses[0] == pytest.approx(expected, abs=1e-5)


def test_a_continued_run_keeps_the_weights_of_its_checkpoint(models: Path, tmp_path: Path) -> None:
    first = module(models)
    fit = trainer(tmp_path, 1)
    fit.fit(first, loader(first, [[0, 1]]))
    start = saved(first, tmp_path)
    fit = trainer(tmp_path, 2)
    fit.fit(first, loader(first, [[0, 1], [2, 3]]))
    fit.save_checkpoint(tmp_path / "two.ckpt")
    second = module(models)
    path = str(tmp_path / "two.ckpt")
    trainer(tmp_path, 2, [InitialFuser(start)]).fit(second, loader(second, [[0, 1], [2, 3]]), ckpt_path=path)
    for name, weight in first.model.fuser.state_dict().items():
        assert torch.equal(weight, second.model.fuser.state_dict()[name])


@pytest.mark.parametrize("choices", [{"hidden_dim": 12}, {"layer_map": [[0, -1, -1, -1]]}])
def test_a_fuser_of_other_choices_is_refused(choices: dict[str, Any], models: Path, tmp_path: Path) -> None:
    first, other = module(models), module(models, **choices)
    first.configure_model()
    with pytest.raises(PairMismatchError, match="other layers, sizes or another kind"):
        trainer(tmp_path, 1, [InitialFuser(saved(first, tmp_path))]).fit(other, loader(other, [[0, 1]]))

"""Training of a hub: the joint loss and its gradients, joining, checkpoints and resume, directories, bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything

from c2c_lightning.data.joint_batch import JointBatch
from c2c_lightning.errors import ConfigurationError, DataError, FuserConfigError
from c2c_lightning.export.hub_directory import load_hub
from c2c_lightning.fuser.direction import Direction
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.checkpoint import Checkpoint
from c2c_lightning.training.hub_module import HubModule
from tests.training.hubs import NAMES, data, module, save_models
from tests.training.runs import Losses, trainer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


def first_batch(trained: HubModule, folder: Path) -> JointBatch:
    """A batch of every direction."""
    rows = data(folder)
    rows.trainer = trainer(folder, 1)
    rows.trainer.strategy.connect(trained)
    return next(iter(rows.train_dataloader()))


def test_joint_loss_is_the_sum_of_the_exported_pairs(models: Path, tmp_path: Path) -> None:
    trained = module(models)
    trained.configure_model()
    trained.eval()
    batch = first_batch(trained, tmp_path)
    assert len(batch.batches) == 6
    with torch.no_grad():
        joint = trained.model.batch_loss(batch)
        parts = []
        for name, part in batch.batches.items():
            direction = Direction.parse(name)
            lms = trained.model.models
            pair = C2CModel(lms[direction.receiver], [lms[direction.sharer]], trained.model.fuser.pair(direction))
            parts.append(pair.eval().response_loss(part))
    torch.testing.assert_close(joint, torch.stack(parts).sum())


def test_every_parameter_has_a_gradient_and_language_models_have_none(models: Path, tmp_path: Path) -> None:
    trained = module(models)
    trained.configure_model()
    trained.train()
    trained.model.batch_loss(first_batch(trained, tmp_path)).backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())
    assert not any(p.requires_grad for lm in trained.model.models.values() for p in lm.model.parameters())
    assert {name.split(".")[1] for name, _ in trained.named_parameters()} == {"fuser"}


def test_pairs_follow_the_mode_of_every_single_module(models: Path, tmp_path: Path) -> None:
    trained = module(models)
    trained.configure_model()
    batch = first_batch(trained, tmp_path)
    for mode in (False, True):
        for part in trained.modules():  # as Lightning restores modes after a validation
            part.training = mode
        losses = [float(trained.model.batch_loss(batch)) for _ in range(2)]
        assert (losses[0] == losses[1]) is not mode, "gates have noise in training alone"


def run(models: Path, folder: Path, steps: int, ckpt: Any = None, **settings: Any) -> tuple[HubModule, Losses, Any]:
    seed_everything(7, verbose=False)
    losses, trained = Losses(), module(models, **settings)
    checkpoint = Checkpoint(dirpath=folder / "checkpoints", save_last=True, every_n_train_steps=2, save_top_k=-1)
    fit = trainer(
        folder,
        steps,
        [losses, ExportFuser(), checkpoint],
        enable_checkpointing=True,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    fit.fit(trained, data(folder.parent), ckpt_path=ckpt)
    return trained, losses, fit


@pytest.mark.slow
def test_a_resumed_run_is_the_whole_one(models: Path, tmp_path: Path) -> None:
    whole, losses, fit = run(models, tmp_path / "whole", 7)
    _, before, _ = run(models, tmp_path / "part", 4)
    again, after, _ = run(models, tmp_path / "part", 7, ckpt=str(tmp_path / "part/checkpoints/last.ckpt"))
    assert [*before.losses, *after.losses] == losses.losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    names = {f"val/loss/{sharer}_to_{receiver}" for sharer in NAMES for receiver in NAMES if sharer != receiver}
    assert names <= set(fit.callback_metrics)
    torch.testing.assert_close(
        fit.callback_metrics["val/loss"], torch.stack([fit.callback_metrics[name] for name in names]).mean()
    )
    saved = load_hub(tmp_path / "whole/hub")
    for name, tensor in saved.fuser.state_dict().items():
        assert torch.equal(tensor, whole.model.fuser.state_dict()[name]), name
    saved.export(Direction("llama", "qwen"), tmp_path / "pair")
    fused = C2CModel.from_pretrained(tmp_path / "pair")
    assert len(fused.chat([[{"role": "user", "content": "Who is 3?"}]], max_new_tokens=2)) == 1


def test_a_model_joins_and_everything_else_stays(models: Path, tmp_path: Path) -> None:
    two = module(models, "qwen", "llama")
    two.configure_model()
    two.export(tmp_path / "two")
    hub = str(tmp_path / "two")
    joining = HubModule({"third": module(models).plan.models["mistral"]}, fuser=module(models).fuser_config, hub=hub)
    assert {str(d) for d in joining.plan.directions} == {
        f"{a}_to_{b}" for a, b in (("third", "qwen"), ("qwen", "third"), ("third", "llama"), ("llama", "third"))
    }
    joining.configure_model()
    trained = {name for name, p in joining.named_parameters() if p.requires_grad}
    assert trained
    assert all("third" in name for name in trained)
    before = load_hub(hub).fuser.state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, joining.model.fuser.state_dict()[name])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"directions": ["qwen_to_gemma"]}, FuserConfigError, "unknown model 'gemma'"),
        ({"directions": ["qwen_to_llama"]}, ConfigurationError, "mistral is in none of the directions"),
        ({"directions": ["qwen"]}, FuserConfigError, "SHARER_to_RECEIVER"),
        ({"fuser": {"kind": "c2c", "options": {}}}, FuserConfigError, "of kind `hub`"),
        ({"fuser": {"layer_alignment": "correlated"}}, FuserConfigError, "measured on one pair"),
    ],
    ids=str,
)
def test_bad_settings_are_named_before_a_model_is_loaded(
    models: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        module(models, **settings)


def test_a_hub_needs_two_models(models: Path) -> None:
    with pytest.raises(ConfigurationError, match="two models at least"):
        module(models, "qwen")


def test_joining_a_model_that_is_there_or_of_other_sizes_is_refused(models: Path, tmp_path: Path) -> None:
    two = module(models, "qwen", "llama")
    two.configure_model()
    two.export(tmp_path / "hub")
    hub = str(tmp_path / "hub")
    with pytest.raises(ConfigurationError, match="has a model 'qwen' already"):
        module(models, "qwen", hub=hub)
    with pytest.raises(ConfigurationError, match="which the hub has already as 'qwen'"):
        HubModule({"again": two.plan.models["qwen"]}, fuser=two.fuser_config, hub=hub)
    with pytest.raises(ConfigurationError, match="Models join a hub with its sizes"):
        module(models, "mistral", hub=hub, fuser={"options": {"latent_layers": 4, "latent_dim": 9}})
    with pytest.raises(ConfigurationError, match="qwen_to_llama lie between models of the hub"):
        module(models, "mistral", hub=hub, directions=["qwen_to_llama"])


def test_a_sharer_without_rows_is_named(models: Path, tmp_path: Path) -> None:
    trained = module(models)
    trained.configure_model()
    rows = data(tmp_path)
    del rows.train_rows["llama"]  # type: ignore[union-attr,arg-type]
    rows.trainer = trainer(tmp_path, 1)
    rows.trainer.strategy.connect(trained)
    with pytest.raises(DataError, match="no rows for the sharer 'llama'"):
        rows.train_dataloader()

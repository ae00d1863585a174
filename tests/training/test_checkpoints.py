"""Checkpoints: what they hold, and that training goes on from them as if nothing had happened."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import CheckpointError
from c2c_lightning.export.from_checkpoint import export_checkpoint
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.training.checkpoint import AtomicCheckpointIO, Checkpoint
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, batch, module, trainer, write_rows

SAVED_AT = 3


class Run:
    """Six steps of two or so epochs, with a checkpoint in the middle of the first."""

    def __init__(self, models: Path, folder: Path, ckpt_path: Path | None = None) -> None:
        data = InstructionDataModule(
            Messages(write_rows(folder / "rows.jsonl", 16)),
            validation_share=0.0,
            batch_size=4,
            cache_dir=str(folder / "cache"),
        )
        self.losses = Losses()
        self.module = module(models, gate_noise="logistic", dropout=0.1, anneal_steps=6)
        L.seed_everything(3, verbose=False)
        checkpoint = Checkpoint(
            dirpath=folder, filename="{step}", every_n_train_steps=SAVED_AT, save_top_k=-1, save_last="link"
        )
        run = trainer(folder, 6, [self.losses, checkpoint], enable_checkpointing=True, plugins=[AtomicCheckpointIO()])
        path = None if ckpt_path is None else str(ckpt_path)
        run.fit(self.module, datamodule=data, ckpt_path=path, weights_only=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def whole(models: Path, folder: Path) -> Run:
    return Run(models, folder)


@pytest.fixture
def saved(whole: Run, folder: Path) -> Path:
    return folder / f"step={SAVED_AT}.ckpt"


def test_the_fuser_and_no_language_model_is_saved(whole: Run, saved: Path) -> None:
    content: dict[str, Any] = torch.load(saved, weights_only=True)
    assert set(content["state_dict"]) == set(whole.module.state_dict())
    assert all(name.startswith(("model.fuser.", "val_loss")) for name in content["state_dict"])
    assert saved.stat().st_size < 1_000_000
    assert content["global_step"] == SAVED_AT
    assert len(content["optimizer_states"]) == len(content["lr_schedulers"]) == 1
    assert "RandomState" in content["callbacks"]


def test_resuming_changes_nothing(whole: Run, models: Path, saved: Path, tmp_path: Path) -> None:
    resumed = Run(models, tmp_path, saved)
    assert resumed.losses.losses == whole.losses.losses[SAVED_AT:]
    expected = whole.module.state_dict()
    state = resumed.module.state_dict()
    assert set(state) == set(expected)
    # Gate temperatures are among them.
    assert [name for name, value in state.items() if not torch.equal(value, expected[name])] == []
    assert any(name.endswith("temperature") for name in state)


def test_load_from_checkpoint(whole: Run, saved: Path, folder: Path) -> None:
    loaded = C2CModule.load_from_checkpoint(folder / "step=6.ckpt")
    assert loaded.fuser_config == whole.module.fuser_config
    row = batch(loaded, [1, 2, 3])
    whole.module.eval()
    loaded.eval()
    with torch.no_grad():
        assert torch.equal(loaded.model.response_loss(row), whole.module.model.response_loss(row))


def test_a_missing_tensor_is_refused(whole: Run, saved: Path, tmp_path: Path) -> None:
    content = torch.load(saved, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("gate.logit"))
    del content["state_dict"][name]
    torch.save(content, tmp_path / "cut.ckpt")
    with pytest.raises(CheckpointError, match=r"missing: .*gate\.logit"):
        C2CModule.load_from_checkpoint(tmp_path / "cut.ckpt")


def test_export_gives_the_same_logits(whole: Run, folder: Path, tmp_path: Path) -> None:
    export_checkpoint(folder / "step=6.ckpt", tmp_path / "fuser")
    model = C2CModel.from_pretrained(tmp_path / "fuser")
    ids = torch.arange(3, 23)[None]
    prompt = PromptBatch.shared(ids[:, :15])
    whole.module.eval()
    with torch.no_grad():
        ours, theirs = model(prompt, ids[:, 15:]), whole.module.model(prompt, ids[:, 15:])
    assert torch.equal(ours.logits, theirs.logits)
    assert not torch.equal(model(prompt, ids[:, 15:], active_sharers=()).logits, ours.logits)


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_export_names_what_is_wrong(damage: str, whole: Run, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    if damage == "cut":
        path.write_bytes(saved.read_bytes()[:1000])
    elif damage == "foreign":
        torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        export_checkpoint(path, tmp_path / "fuser")
    assert not (tmp_path / "fuser").exists()

"""Training the maps of the transformation oracle: what trains, moments, scales, and exact resuming."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.optim import AdamW

from c2c_lightning.analysis.transform.entry_map import EntryMapConfig
from c2c_lightning.analysis.transform.model_pair import PARTS
from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.checkpoint_io import AtomicCheckpointIO
from c2c_lightning.training.optim import Schedule
from c2c_lightning.training.transform_module import TransformModule
from tests.training.runs import Losses, trainer, write_rows


def transform_module(models: Path, **choices: Any) -> TransformModule:
    L.seed_everything(1, verbose=False)
    specs = LMSpec(str(models / "receiver")), LMSpec(str(models / "sharer"))
    return TransformModule(*specs, EntryMapConfig(hidden_dim=8), token_alignment="span", **choices)


def data(tmp_path: Path, **settings: Any) -> InstructionDataModule:
    rows = Messages(write_rows(tmp_path / "rows.jsonl"))
    return InstructionDataModule(rows, batch_size=4, cache_dir=str(tmp_path / "cache"), **settings)


def run_constant(models: Path, tmp_path: Path, steps: int, ckpt_path: str | None = None) -> dict[str, torch.Tensor]:
    """The state after a run with a constant learning rate, which leaves STEPS.ckpt."""
    module = transform_module(models, schedule=Schedule("constant_with_warmup", 0.0))
    made = trainer(tmp_path, steps, plugins=[AtomicCheckpointIO()])
    made.fit(module, datamodule=data(tmp_path), ckpt_path=ckpt_path, weights_only=True)
    made.save_checkpoint(tmp_path / f"{steps}.ckpt")
    return module.state_dict()


def test_the_loss_falls_and_the_language_models_stay_as_they_are(models: Path, tmp_path: Path) -> None:
    fast = transform_module(models, optimizer=lambda parameters: AdamW(parameters, lr=0.01))
    module, losses = fast, Losses()
    module.configure_model()
    names = {name.split(".")[4] for name, _ in module.named_parameters()}
    assert names == {"mlp"}
    frozen = [p.clone() for lm in (module.model.pair.receiver, module.model.pair.sharer) for p in lm.model.parameters()]
    trainer(tmp_path, 60, [losses]).fit(module, datamodule=data(tmp_path))
    # An epoch has six batches.
    assert sum(losses.losses[-6:]) < 0.8 * sum(losses.losses[:6])
    after = [p for lm in (module.model.pair.receiver, module.model.pair.sharer) for p in lm.model.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(frozen, after, strict=True))


def test_moments_count_every_training_token_once(models: Path, tmp_path: Path) -> None:
    module, rows = transform_module(models), data(tmp_path)
    trainer(tmp_path, 3).fit(module, datamodule=rows)
    loader = rows.train_dataloader()
    tokens = sum(
        int((batch.prompt.sharers[0].index[:, :-1] >= 0).sum()) for batch, _ in zip(loader, range(3), strict=False)
    )
    for part in PARTS:
        for layer in module.model.layers(part):
            assert int(layer.moments.count) == tokens
    # Validation rows do not count.
    before = [moment.clone() for moment in module.model.layers("values")[0].moments.buffers()]
    trainer(tmp_path, 3, limit_val_batches=1).validate(module, datamodule=rows, verbose=False)
    after = module.model.layers("values")[0].moments.buffers()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_resumed_run_ends_with_the_weights_and_moments_of_the_whole_run(models: Path, tmp_path: Path) -> None:
    whole = run_constant(models, tmp_path, 6)
    run_constant(models, tmp_path, 3)
    resumed = run_constant(models, tmp_path, 6, str(tmp_path / "3.ckpt"))
    assert set(whole) == set(resumed)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    saved = torch.load(tmp_path / "6.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in saved if not name.startswith("model.parts.")]


def test_a_sharer_in_another_process_is_refused(models: Path) -> None:
    elsewhere = TransformModule(LMSpec(str(models / "receiver")), LMSpec("some", url="http://localhost:1"))
    with pytest.raises(ConfigurationError, match="another process"):
        elsewhere.configure_model()


def test_the_last_layer_alone_has_one_map_for_each_part(models: Path) -> None:
    module = transform_module(models, layers="last")
    module.configure_model()
    assert len(module.model.pair.layers) == 1
    assert [len(module.model.layers(part)) for part in PARTS] == [1, 1, 1]

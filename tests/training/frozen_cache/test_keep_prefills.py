"""`model.cache_frozen` in whole trainings: same results, on disk for later runs, and named refusals."""

import logging
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import ConfigurationError, FrozenCacheError
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.module import C2CModule
from tests.training.runs import Losses, module, trainer, write_rows

STEPS = 8


def fit(
    models: Path,
    folder: Path,
    cache: str | None,
    steps: int = STEPS,
    made: C2CModule | None = None,
    stop: Callback | None = None,
    ckpt_path: str | None = None,
    **settings: Any,
) -> tuple[list[float], C2CModule]:
    """Train two epochs of 16 rows with a validation after each; the losses and the module."""
    L.seed_everything(1, verbose=False)
    folder.mkdir(exist_ok=True)
    made = made or module(models, settings={"cache_frozen": cache, **settings}, dropout=0.1)
    data = InstructionDataModule(
        Messages(write_rows(folder / "rows.jsonl", 20)),
        validation_share=0.2,
        batch_size=4,
        cache_dir=str(folder / "tokens"),
    )
    losses = Losses()
    trainer(folder, steps, [losses] if stop is None else [losses, stop]).fit(made, data, ckpt_path=ckpt_path)
    return losses.losses, made


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def test_a_training_with_kept_caches_is_the_training_without(
    models: Path, tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    expected, plain = fit(models, tmp_path / "plain", None)
    found, kept = fit(models, tmp_path / "kept", "memory")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(kept.named_parameters()), dict(plain.named_parameters()), rtol=1e-4, atol=1e-5)
    text = messages.text
    assert text.index("Caches of the frozen models are kept (memory)") < text.index("Kept caches: reused for")
    assert kept.model.frozen_prefills is None  # the memory is free again


def test_a_second_run_computes_nothing_that_the_first_one_kept_on_disk(
    models: Path, tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    options = {"cache_frozen_dir": str(tmp_path / "kept")}
    first, _ = fit(models, tmp_path / "run", "disk", **options)
    messages.clear()
    second, _ = fit(models, tmp_path / "run", "disk", **options)
    assert second == first
    (line,) = (record.message for record in messages.records if "Kept caches" in record.message)
    counts = re.findall(r"(\d+) of (\d+) prefills", line)
    assert len(counts) == 2
    assert all(reused == every for reused, every in counts)
    assert "saved" not in line


class StopAfter(Callback):
    """Writes a checkpoint after a step and ends the run."""

    def __init__(self, step: int, path: str) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def test_a_run_that_is_resumed_in_its_second_epoch_computes_nothing_again(
    models: Path, tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    expected, _ = fit(models, tmp_path / "run", "disk", cache_frozen_dir=str(tmp_path / "whole"))
    options, path = {"cache_frozen_dir": str(tmp_path / "kept")}, str(tmp_path / "stopped.ckpt")
    first, _ = fit(models, tmp_path / "run", "disk", stop=StopAfter(5, path), **options)
    messages.clear()
    second, _ = fit(models, tmp_path / "run", "disk", ckpt_path=path, **options)
    assert first + second == expected
    (line,) = (record.message for record in messages.records if "Kept caches" in record.message)
    assert all(reused == every for reused, every in re.findall(r"(\d+) of (\d+) prefills", line))


def test_the_size_is_estimated_before_the_training(
    models: Path, tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    fit(models, tmp_path, "disk", cache_frozen_dir=str(tmp_path / "kept"))
    shards = [load_file(path) for path in (tmp_path / "kept").rglob("*.safetensors")]
    kept = sum(t.nbytes for shard in shards for name, t in shard.items() if name.endswith("entries"))
    (line,) = (record.message for record in messages.records if "are kept (disk)" in record.message)
    per_row = sum(map(float, re.findall(r"([\d.e-]+) MB of", line)))
    assert per_row * 20 == pytest.approx(kept / 1e6, rel=0.05)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"receiver": {"dtype": "bfloat16"}}, "another type of weights"),
        ({"receiver": {"path": "other_sharer"}}, "another model"),
        ({"receiver": {"prompt_template": "plain"}}, "other tokenizers, chat templates or token alignment"),
    ],
)
def test_caches_of_another_run_are_refused_by_name(
    models: Path, tmp_path: Path, change: dict[str, dict[str, str]], named: str
) -> None:
    options = {"cache_frozen": "disk", "cache_frozen_dir": str(tmp_path / "kept")}
    fit(models, tmp_path / "run", "disk", cache_frozen_dir=str(tmp_path / "kept"))
    spec = {"path": "receiver", **change["receiver"]}
    spec["path"] = str(models / spec["path"])
    made = C2CModule(LMSpec(**spec), [LMSpec(str(models / "sharer"))], module(models).fuser_config, **options)
    with pytest.raises(FrozenCacheError, match=named):
        fit(models, tmp_path / "run", "disk", made=made)


def test_a_limit_that_no_row_fits_in_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(FrozenCacheError, match=r"cache_frozen_limit_gb.* is 1e-07, but the kept cache of one row"):
        fit(models, tmp_path, "memory", cache_frozen_limit_gb=1e-7)


def test_impossible_settings_are_refused(models: Path) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        module(models, settings={"cache_frozen": "memory", "cache_frozen_limit_gb": 0.0})
    with pytest.raises(ConfigurationError, match="cache_frozen: disk"):
        module(models, settings={"cache_frozen": "memory", "cache_frozen_dir": "somewhere"})


def test_rows_that_come_once_are_not_kept_in_memory(
    models: Path, tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    fit(models, tmp_path, "memory", steps=3)
    assert "No training row is used twice" in messages.text


def test_a_damaged_identity_is_refused(models: Path, tmp_path: Path) -> None:
    options = {"cache_frozen_dir": str(tmp_path / "kept")}
    fit(models, tmp_path / "run", "disk", **options)
    (tmp_path / "kept" / "receiver" / "identity.json").write_text("{")
    with pytest.raises(FrozenCacheError, match="is damaged"):
        fit(models, tmp_path / "run", "disk", **options)

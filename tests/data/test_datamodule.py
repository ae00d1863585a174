"""The data module: what it refuses, its cache, its split, and what it says of a run that goes on otherwise."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.loading.step_plan import Processes, StepSize
from c2c_lightning.data.preprocessing.row_encoder import RowEncoder
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import ConfigurationError, DataError
from tests.data.encoders import shared_encoder
from tests.data.rows import write_chat


def data_module(folder: Path, path: str, **settings: Any) -> InstructionDataModule:
    defaults: dict[str, Any] = {"encoder": shared_encoder(), "cache_dir": str(folder / "cache"), "batch_size": 4}
    return InstructionDataModule(Messages(path), **{**defaults, **settings})


@pytest.mark.parametrize("name", ["batch_size", "max_tokens_per_batch"])
def test_empty_batches_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"`{name}` must be at least 1, but is 0"):
        InstructionDataModule(Messages("embedded:facts/train_chat"), **{name: 0})


def test_a_second_start_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_chat(tmp_path / "a.jsonl", 30)
    first = data_module(tmp_path, path)
    first.prepare()

    def never(*_: Any) -> None:
        raise AssertionError("a row was encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(RowEncoder, "__call__", never)
        second = data_module(tmp_path, path)
        second.prepare()
        assert second.report.to_dict() == first.report.to_dict()
        # Another file is another table.
        other = data_module(tmp_path, write_chat(tmp_path / "b.jsonl", 3))
        with pytest.raises(AssertionError, match="encoded again"):
            other.prepare()


def asked(loader: Any) -> set[str]:
    """What the batches ask; tokens tell questions apart."""
    return {
        str([token for token in row.tolist() if token]) for batch in loader for row in batch.prompt.receiver.input_ids
    }


def test_the_split_never_puts_a_question_on_both_sides(tmp_path: Path) -> None:
    questions = [f"What is {number} and {number % 7}?" for number in range(60)]
    rows = [
        {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": f"{copy}"}]}
        for copy, change in enumerate((str, str.upper, "  {}".format))
        for words in map(change, questions)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = data_module(tmp_path, str(path), validation_share=0.2)
    data.prepare()
    report = data.report
    assert report.validation_rows == report.sources[0].held_out > 0
    # All three ways to write a question go together.
    assert report.validation_rows % 3 == 0
    assert report.train_rows == 180 - report.validation_rows
    assert not asked(data.train_dataloader()) & asked(data.val_dataloader())


def test_questions_of_the_validation_data_are_not_trained_on(tmp_path: Path) -> None:
    path = write_chat(tmp_path / "a.jsonl", 30)
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(Path(path).read_text().splitlines(keepends=True)[:10]))
    data = data_module(tmp_path, path, validation=Messages(str(held_out)))
    data.prepare()
    assert data.report.sources[0].dropped["question is in the validation data"] == 10
    assert not asked(data.train_dataloader()) & asked(data.val_dataloader())


class Fit(L.LightningModule):
    """Trains nothing."""

    def training_step(self, *_: Any) -> None:
        return None

    def validation_step(self, *_: Any) -> None:
        return None

    def configure_optimizers(self) -> None:
        return None


def fit(folder: Path, data: InstructionDataModule, **settings: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **settings)
    trainer.fit(Fit(), datamodule=data)
    return trainer


def test_an_interval_longer_than_an_epoch_is_one_message(tmp_path: Path) -> None:
    path = write_chat(tmp_path / "a.jsonl", 30)
    with pytest.raises(ConfigurationError, match=r"`trainer.val_check_interval` is 100 batches, but an epoch .* has 7"):
        fit(tmp_path, data_module(tmp_path, path, validation_share=0.1), max_steps=4, val_check_interval=100)
    with pytest.raises(ConfigurationError, match="is 5 batches, but an epoch of this run has 2"):
        fit(tmp_path, data_module(tmp_path, path), max_steps=4, val_check_interval=5, limit_train_batches=2)


@pytest.mark.parametrize(
    "settings", [{"check_val_every_n_epoch": None}, {"limit_val_batches": 0}, {"val_check_interval": 0.5}]
)
def test_intervals_that_are_fine(settings: dict[str, Any], tmp_path: Path) -> None:
    path = write_chat(tmp_path / "a.jsonl", 30)
    fit(tmp_path, data_module(tmp_path, path), **{"max_epochs": 1, "val_check_interval": 100, **settings})


def test_steps_of_another_size_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_module(tmp_path, write_chat(tmp_path / "a.jsonl", 30), validation_share=0.0)
    data.prepare()
    made = data._loaders
    assert made is not None
    caplog.clear()
    state = {**made.train_loader(Processes()).state(0, 100), "steps": [[list(StepSize(4)), 3]], "batches": 3}
    assert made.train_loader(Processes()).resume([state]) == 3
    assert not caplog.text
    assert made.train_loader(Processes(world_size=2)).resume([state]) == 3
    assert "another size than those of the checkpoint" in caplog.text
    assert "Each row still comes once" in caplog.text


class Pair(Fit):
    """Models with contexts of 40 and 60 tokens."""

    context_lengths = (40, 60)

    def configure_model(self) -> None:
        raise AssertionError("models are made before the data is known to be there")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("limits", "model"), [((40, None), "the receiver"), ((None, 40), "sharer 1")])
def test_rows_longer_than_a_context_are_dropped_and_counted(
    limits: tuple[int | None, int | None], model: str, streaming: bool, tmp_path: Path
) -> None:
    source = Messages(write_chat(tmp_path / "a.jsonl", 60), streaming=streaming)
    data = InstructionDataModule(
        source, encoder=shared_encoder(), cache_dir=str(tmp_path / "c"), validation_share=0.2, stream_rows=60
    )
    trainer = L.Trainer(logger=False, accelerator="cpu", max_steps=9)
    trainer.strategy._lightning_module = type("Limited", (Fit,), {"context_lengths": limits})()
    data.trainer = trainer
    batches = [*islice(data.train_dataloader(), 20), *data.val_dataloader()]
    number = 0 if limits[0] else 1
    for batch in batches:
        models = (batch.prompt.receiver, *batch.prompt.sharers)
        assert int((models[number].mask.sum(1) + batch.response_mask.sum(1)).max()) <= 40
    data.state_dict()
    dropped = data.report.sources[0].dropped[f"longer than the 40 positions of {model}"]
    assert dropped > 5
    assert streaming or sum(len(batch) for batch in batches) + dropped == 60


def test_missing_data_is_named_before_models_are_made(tmp_path: Path) -> None:
    data = data_module(tmp_path, str(tmp_path / "nothing.jsonl"))
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=1)
    with pytest.raises(DataError, match=r"There is no data at .*nothing\.jsonl"):
        trainer.fit(Pair(), datamodule=data)


def test_an_unfinished_step_is_done_again(tmp_path: Path) -> None:
    data = data_module(tmp_path, write_chat(tmp_path / "a.jsonl", 40), validation_share=0.0)
    data.prepare()
    made = data._loaders
    assert made is not None
    whole, resumed = (made.train_loader(Processes(accumulate=2)) for _ in range(2))
    batches = [batch.response_ids.tolist() for batch in whole]
    iterator = iter(whole)
    for _ in range(5):
        next(iterator)
    assert resumed.resume([whole.state(5, 10)]) == 4
    assert [batch.response_ids.tolist() for batch in resumed] == batches[4:]


def test_the_description_has_no_folders(tmp_path: Path) -> None:
    local = Messages(write_chat(tmp_path / "chat.jsonl", 3))
    assert InstructionDataModule(local).description == "chat.jsonl"
    mixture = [Messages("owner/name"), Messages(f"{tmp_path}/*.jsonl"), Messages("embedded:facts/train_chat")]
    assert InstructionDataModule(mixture).description == "owner/name + *.jsonl + embedded:facts/train_chat"


def test_one_validation_row_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for share, count in ((1e-9, 1), (0.9, 0)):
        caplog.clear()
        data_module(tmp_path, write_chat(tmp_path / "a.jsonl", 30), validation_share=share).prepare()
        warnings = [record for record in caplog.records if "one row is held out" in record.getMessage()]
        assert len(warnings) == count

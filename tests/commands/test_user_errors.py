"""Mistakes at the command line end with one message; faults of the package keep their traceback."""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from c2c_lightning import embedded
from c2c_lightning.cli import main
from c2c_lightning.commands import terminal_chat
from c2c_lightning.commands.user_errors import user_message
from c2c_lightning.errors import DataError

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
FIT = ["fit", "--config", str(TESTS / "conf" / "fit.yaml")]
KIND, OPTIONS = ("--model.fuser.kind",), ("--model.fuser.options",)
BENCH = ["bench", "--config", str(ROOT / "configs" / "bench" / "step.yaml")]
ANALYZE = ["analyze", "alignment", "--config", str(ROOT / "configs" / "analyze" / "quickstart_alignment.yaml")]


def message_of(capsys: pytest.CaptureFixture[str], code: int, arguments: Sequence[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == code
    error = capsys.readouterr().err
    return error[error.index("error: ") :]


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ([*FIT, "--data.batch_sise", "4"], "--data.batch_size"),
        ([*FIT, "--model.fuser.hiden_dim", "4"], "--model.fuser.hidden_dim"),
        ([*FIT, "--data.train", '{"class_path": "Messages", "init_args": {"pth": "x"}}'], "path"),
        ([*BENCH, "--sed", "3"], "--seed"),
        ([*ANALYZE, "--max_row", "3"], "--max_rows"),
        (["export", "--ckpt_pth", "x", "--output_dir", "y"], "--ckpt_path"),
        (["tes"], "test"),
    ],
)
def test_a_misspelt_key_gets_a_suggestion(
    arguments: list[str], suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"Did you mean `{suggestion}`?" in message_of(capsys, 2, arguments)


def test_a_misspelt_key_of_a_file_gets_a_suggestion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("trainr:\n  max_steps: 3\n")
    assert "Did you mean `trainer.max_steps`?" in message_of(capsys, 2, ["fit", "--config", str(config)])


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--trainer.max_steps=abc", "Expected int. Got value: abc"),
        ("--model.fuser.token_alignment=spam", "Expected one of 'auto', 'identity', 'first'"),
    ],
)
def test_a_wrong_value_is_answered_with_the_accepted_ones(
    option: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in message_of(capsys, 2, [*FIT, option])


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_malformed_yaml_is_named_with_its_file(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: [1\ndata: 2\n")
    message = message_of(capsys, 2, [*FIT, *form.format(config).split()])
    assert f"in `{config}`, line 2, column 5" in message.replace("\n", " ")


@pytest.mark.parametrize("option", ["--model.receiver", "--model.sharers"])
def test_a_model_given_as_text_is_shown_its_form(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "A language model is given as a mapping" in message_of(capsys, 2, [*FIT, option, "embedded:receiver"])


BOMB = "\n".join(["a0: &a0 [x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [(BOMB, "aliases expand"), ("a: &a [*a]", "aliases expand"), (f"a: {'[' * 5000}{']' * 5000}", "nested too deeply")],
    ids=["alias bomb", "alias to itself", "deep nesting"],
)
def test_yaml_is_bounded(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text)
    assert message in message_of(capsys, 2, ["fit", "--config", str(config)])


def test_a_yaml_tag_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    assert "could not determine a constructor" in message_of(capsys, 2, ["fit", "--config", str(config)])
    assert not (tmp_path / "made").exists()


def test_aliases_of_ordinary_size_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("trainer: {max_steps: &n 7, log_every_n_steps: *n}\n")
    with pytest.raises(SystemExit) as exit_:
        main([*FIT, "--config", str(config), "--print_config"])
    assert exit_.value.code in (0, None)
    assert capsys.readouterr().out.count(": 7") == 2


CALLBACK = '{{"class_path": "lightning.pytorch.callbacks.{}", "init_args": {}}}'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.optimizer.lr", ".nan"], "NaN"),
        (["--trainer.accumulate_grad_batches", "0"], "accumulate_grad_batches"),
        (["--seed_everything", "-1"], "seed_everything"),
        (["--data.num_workers", "-1"], "data.num_workers"),
        (["--ckpt_path", "best"], "ckpt_path"),
        (["--trainer.callbacks+", CALLBACK.format("LearningRateFinder", "{}")], "learning rate finder"),
        (["--trainer.callbacks+", CALLBACK.format("EarlyStopping", '{"monitor": "val_loss"}')], "val/loss"),
        (["--model.receiver.path", "/nope/model"], "there is no directory '/nope/model'"),
        (["--model.sharers", "[]"], "`model.sharers` is empty"),
        (["--trainer.val_check_interval", "0"], "`trainer.val_check_interval` must be above 0"),
        (["--trainer.devices", "-3"], "`devices` selected with `CPUAccelerator`"),
        (["--trainer.default_root_dir", ""], "trainer.default_root_dir is empty"),
        (["--model.optimizer", '{"class_path": "torch.optim.SparseAdam"}'], "dense gradients"),
        (["--ckpt_path", "https://example.org/x.ckpt"], "local file"),
        (["--model.fuser.num_layers", "10000000"], "num_layers is 10000000, but must be at most 1000"),
        (["--trainer.devices", "99"], "trainer.devices asks for 99 processes"),
        ([*KIND, "low_rank", *OPTIONS, '{"rank": 400}'], "rank is 400, but keys and values use half of it each"),
        ([*KIND, "ridge", *OPTIONS, '{"map_rank": 100}'], "map_rank is 100, but a map from 180 to 64 dimensions"),
        ([*KIND, "low_rank", "--model.fuser.fusion_mode", "replace"], "the fuser kind 'low_rank' reads its entries"),
    ],
)
def test_a_wrong_value_of_a_run_is_one_message(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in message_of(capsys, 1, [*FIT, *options])


@pytest.mark.parametrize("size", [0, 20_000])
def test_weights_cut_short(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(embedded.resolve("embedded:receiver"), tmp_path / "model")
    os.truncate(tmp_path / "model" / "model.safetensors", size)
    message = message_of(capsys, 1, [*FIT, "--model.receiver.path", "./model"])
    assert "the weights of './model' are damaged or incomplete" in message


def test_a_run_folder_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    root = ["--trainer.default_root_dir", str(tmp_path / "file")]
    assert "is a file. Name a folder" in message_of(capsys, 1, [*FIT, *root])


@pytest.mark.parametrize("command", [FIT[:2], BENCH[:2]], ids=["fit", "bench"])
def test_a_configuration_that_is_not_text(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\x80\x81")
    assert "not text in UTF-8" in message_of(capsys, 2, [*command, str(tmp_path / "run.yaml")])


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_checkpoint_of_a_command_that_loads_fusers(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [command, "--config", str(TESTS / "conf" / f"{command}.yaml"), "--ckpt_path", "last.ckpt"]
    assert "--model.fuser last.ckpt" in message_of(capsys, 1, arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [([], "there is no checkpoint in"), (["--trainer.callbacks", "null"], "no callback of this configuration writes")],
)
def test_validation_of_a_last_checkpoint_that_is_not_there(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in message_of(capsys, 1, ["validate", *FIT[1:], "--ckpt_path", "last", *options])


def test_export_of_a_fuser_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fuser_config.json").write_text(json.dumps({}))
    arguments = ["export", "--ckpt_path", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    assert "is a fuser directory already" in message_of(capsys, 1, arguments)


@pytest.mark.parametrize(
    ("arguments", "name"), [([*ANALYZE, "--sharers", "[]"], "sharers"), ([*BENCH, "--benchmarks", "[]"], "benchmarks")]
)
def test_an_empty_list(arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`{name}` is empty" in message_of(capsys, 1, arguments)


def test_a_full_disk_is_named_where_pytorch_hides_it() -> None:
    problem = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    assert "disk is full" in str(user_message(problem))


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
def test_an_error_of_a_file_names_it(number: int, message: str) -> None:
    text = str(user_message(OSError(number, "x", "run/last.ckpt")))
    assert "run/last.ckpt" in text
    assert message in text


def test_an_error_that_another_was_raised_from_counts() -> None:
    with pytest.raises(RuntimeError) as problem:
        raise RuntimeError("outer") from DataError("no rows")
    assert user_message(problem.value) == "no rows"


def test_a_fault_of_the_package_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: Sequence[str]) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(terminal_chat, "run_chat", broken)
    with pytest.raises(KeyError, match="ours"):
        main(["chat"])

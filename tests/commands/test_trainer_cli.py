"""`fit`, `validate`, `predict`, `export`, `convert` and `chat` as a user calls them, and what they say to mistakes."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from c2c_lightning.cli import COMMANDS, main
from c2c_lightning.model.c2c import C2CModel

TESTS = Path(__file__).parent.parent
FIT, PREDICT = str(TESTS / "conf" / "fit.yaml"), str(TESTS / "conf" / "predict.yaml")
GOLDEN = TESTS / "assets" / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `lightning fit` has run."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", FIT])
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In that folder."""
    monkeypatch.chdir(folder)
    return folder


def fails(capsys: pytest.CaptureFixture[str], code: int, arguments: Sequence[str]) -> str:
    """The one message of a command that fails."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == code
    said = capsys.readouterr()
    message = said.err[said.err.index("error: ") :]
    assert "Traceback" not in said.err
    assert "usage:" not in message
    assert len(message.splitlines()) < 12
    return message


def test_fit_leaves_a_checkpoint_a_log_a_fuser_and_its_configuration(inside: Path) -> None:
    run = inside / "run"
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "fuser", "metrics.csv", "fit_config.yaml"}
    assert (run / "checkpoints" / "last.ckpt").exists()
    config = yaml.safe_load((run / "fit_config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 3
    assert config["model"]["fuser"]["hidden_dim"] == 8
    assert "val/loss_receiver" in (run / "metrics.csv").read_text()


def test_fit_goes_on_from_the_last_checkpoint(inside: Path, tmp_path: Path) -> None:
    log = json.dumps({"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path)}})
    options = ["--trainer.max_steps", "4", "--trainer.callbacks", "null", "--trainer.logger", log]
    # A choice on the command line wins over what the checkpoint was trained with.
    choices = ["--model.fuser.anneal_steps", "9", "--trainer.default_root_dir", str(tmp_path)]
    main(["fit", "--config", FIT, "--ckpt_path", "run/checkpoints/last.ckpt", *options, *choices])
    config = yaml.safe_load((tmp_path / "fit_config.yaml").read_text())
    assert config["model"]["fuser"]["anneal_steps"] == 9


def test_validate(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", "--config", FIT, "--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.logger", "false"])
    assert "val/loss_receiver" in capsys.readouterr().out


def test_predict(inside: Path) -> None:
    main(["predict", "--config", PREDICT])
    lines = [json.loads(line) for line in (inside / "run" / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all(set(line) == {"id", "messages", "answer", "reference"} for line in lines)


@pytest.mark.parametrize("fuser", ["run/fuser", "run/checkpoints/last.ckpt", "[run/fuser, run/checkpoints/last.ckpt]"])
def test_test(fuser: str, inside: Path) -> None:
    main(["test", "--config", str(TESTS / "conf" / "test.yaml"), "--model.fuser", fuser])
    report = json.loads((inside / "run" / "report.json").read_text())
    assert set(report["benchmarks"]["quickstart"]["responders"]) == {"receiver", "c2c", "c2c:zero"}


def test_export(inside: Path, tmp_path: Path) -> None:
    main(["export", "--ckpt_path", "run/checkpoints/last.ckpt", "--output_dir", str(tmp_path / "fuser")])
    ours, theirs = (C2CModel.from_pretrained(path).fuser.state_dict() for path in (tmp_path / "fuser", "run/fuser"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_convert_there_and_back(tmp_path: Path) -> None:
    models = ["--receiver", str(GOLDEN / "receiver"), "--sharers", str(GOLDEN / "sharer")]
    main(["convert", "--input", str(GOLDEN / "checkpoint"), "--output_dir", str(tmp_path / "ours"), *models])
    main(["convert", "--input", str(tmp_path / "ours"), "--output_dir", str(tmp_path / "theirs"), "--to", "released"])
    original = {path.name: path for path in (GOLDEN / "checkpoint" / "final").glob("projector_*.pt")}
    back = {path.name: path for path in (tmp_path / "theirs").rglob("projector_*.pt")}
    assert set(back) == set(original)
    for name, path in original.items():
        first, second = (torch.load(file, weights_only=True) for file in (path, back[name]))
        assert set(first) == set(second)
        assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_chat(inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["What is the food of Nepi?", "", "/reset", "/compare What is the food of Nepi?", "/frob", "/quit", "never"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    main(["chat", "--fuser", "run/fuser", "--max_new_tokens", "4"])
    out = capsys.readouterr().out
    assert out.splitlines()[0]
    assert all(f"{name} " in out for name in ("receiver", "t2t", "c2c"))
    assert "/compare QUESTION" in out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model.fuser.hiden_dim", "3"], "hiden_dim"),
        (["--model.fuser.hidden_dim", "wide"], "hidden_dim"),
        (["--model.fuser.gate_noise", "loud"], "gate_noise"),
        (["--trainer.max_stepz", "3"], "max_stepz"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--data.train.class_path", "NoSource"], "NoSource"),
    ],
)
def test_usage_mistakes(options: list[str], named: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in fails(capsys, 2, ["fit", "--config", FIT, *options])


def test_an_unknown_key_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "overlay.yaml"
    file.write_text("model: {fuser: {hiden_dim: 3}}\n")
    assert "hiden_dim" in fails(capsys, 2, ["fit", "--config", FIT, "--config", str(file)])
    file.write_text("model: [\n")
    assert "line" in fails(capsys, 2, ["fit", "--config", FIT, "--config", str(file)])


def test_without_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert "lightning fit --config quickstart" in fails(capsys, 2, ["fit"])


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["fit", "--config", FIT, "--model.receiver.path", "./nowhere"], "nowhere"),
        (["fit", "--config", FIT, "--ckpt_path", "none.ckpt"], "none.ckpt"),
        (["fit", "--config", FIT, "--data.train.init_args.path", "none.jsonl"], "none.jsonl"),
        (["predict", "--config", PREDICT, "--data.path", "none.jsonl"], "none.jsonl"),
        (["predict", "--config", PREDICT, "--model.fuser", "./nowhere"], "nowhere"),
        (["export", "--ckpt_path", "none.ckpt", "--output_dir", "x"], "none.ckpt"),
        (["convert", "--input", "nowhere", "--output_dir", "x"], "nowhere"),
        (["chat", "--fuser", "./nowhere"], "nowhere"),
    ],
)
def test_wrong_paths(
    command: list[str], named: str, inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--trainer.default_root_dir", str(tmp_path)] if command[0] in ("fit", "predict") else []
    assert named in fails(capsys, 1, [*command, *root])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model.fuser.num_layers", "2"], "num_layers is 2"),
        (["--data.validation_share", "2"], "validation_share"),
        (["--data.train.class_path", "MultipleChoice", "--data.train.init_args.question", "x"], "{question}"),
        (["--trainer.strategy", "fastest"], "fastest"),
        (["--trainer.devices", "0"], "devices"),
        (["--model.receiver.path", "embedded:nobody"], "nobody"),
    ],
)
def test_impossible_values(options: list[str], named: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in fails(capsys, 1, ["fit", "--config", FIT, *options])


def test_malformed_data(inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"messages": [{"role"\n')
    root = ["--trainer.default_root_dir", str(tmp_path / "root")]
    said = fails(capsys, 1, ["fit", "--config", FIT, "--data.train.init_args.path", str(data), *root])
    assert "rows.jsonl:1" in said
    assert "rows.jsonl:1" in fails(capsys, 1, ["predict", "--config", PREDICT, "--data.path", str(data), *root])


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "frob" in fails(capsys, 2, ["frob"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    assert not [name for name in COMMANDS if name not in text]


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"lm-eval"}))  # its help is the harness's own
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code in (0, None)
    assert f"usage: lightning {command}" in capsys.readouterr().out


@pytest.mark.slow
def test_as_a_module() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "c2c_lightning", "frob"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 2
    assert "there is no command 'frob'" in done.stderr

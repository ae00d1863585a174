"""`lightning analyze tokens`, `proportion`, `length` and `scaling`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from c2c_lightning.cli import main
from c2c_lightning.commands import analyze_scaling
from c2c_lightning.evaluation.prediction_log import Prediction
from tests.commands.test_analyze_fuser import fuser
from tests.evaluation.predictions import answered

__all__ = ["fuser"]

CONFIGS = Path(__file__).parents[2] / "configs" / "analyze"


@pytest.fixture
def short_test(tmp_path: Path) -> str:
    """A configuration of `lightning test` with few questions."""
    path = tmp_path / "short.yaml"
    benchmark = {"name": "quickstart", "limit": 6}
    text = {"model": {"max_new_tokens": 3}, "data": {"benchmarks": [benchmark], "batch_size": 6}}
    path.write_text(yaml.safe_dump({**text, "trainer": {"accelerator": "cpu"}}))
    return str(path)


def test_tokens(fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    config = str(CONFIGS / "quickstart_fuser.yaml")
    main(["analyze", "tokens", "--config", config, "--fuser", fuser, "--row", "3", "--output_dir", str(out)])
    assert json.loads((out / "tokens.json").read_text())["answer"]
    assert (out / "tokens.html").read_text().startswith("<!doctype html>")
    assert (out / "tokens.png").stat().st_size > 1000
    assert "user 1" in capsys.readouterr().out


def test_proportion(fuser: str, short_test: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["--test", f"[{short_test}]", "--fuser", fuser, "--shares", "[0.5]", "--output_dir", str(out)]
    main(["analyze", "proportion", *options])
    found = json.loads((out / "proportion.json").read_text())["benchmarks"]["quickstart"]
    assert found["n"] == 6
    assert [point["share"] for point in found["curves"]["latter"]] == [0.0, 0.5, 1.0]
    assert (out / "proportion.png").stat().st_size > 1000
    assert "latter" in capsys.readouterr().out


def test_length(fuser: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, answers = tmp_path / "out", tmp_path / "answers"
    answers.mkdir()
    rows = answered("receiver", [True]) + answered("c2c", [True], 5)
    (answers / "predictions.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--predictions", str(answers), "--fuser", fuser, "--output_dir", str(out)]
    options += ["--sweep.prompt_tokens", "[8]", "--sweep.new_tokens", "[2]", "--sweep.rounds", "1"]
    main(["analyze", "length", *options])
    found = json.loads((out / "length.json").read_text())
    assert found["benchmarks"]["facts"]["c2c"]["differences"]["receiver"][0] == 3.0
    assert len(found["latency"]) == 3
    assert (out / "length.png").stat().st_size > 1000
    assert "tokens of a response" in capsys.readouterr().out


def test_scaling_trains_once_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and evaluation themselves are those of `fit` and `test`."""
    trained: list[dict[str, Any]] = []

    def train(command: str, configs: Sequence[str], options: dict[str, Any]) -> None:
        trained.append(options)
        place = Path(options["trainer.default_root_dir"])
        (place / "checkpoints").mkdir(parents=True, exist_ok=True)
        (place / "checkpoints" / "last.ckpt").touch()
        if len(trained) == 2:
            raise KeyboardInterrupt
        (place / "fuser").mkdir()

    def test(configs: Sequence[str], folder: Path, options: dict[str, Any]) -> list[Prediction]:
        strong = "quarter" not in options["model.fuser"]
        fused, sharer = answered("c2c", [True, strong]), answered("sharer", [True, strong])
        return answered("receiver", [False, False]) + sharer + fused

    monkeypatch.setattr(analyze_scaling, "run_step", train)
    monkeypatch.setattr(analyze_scaling, "run_test", test)
    sharers = "[{path: embedded:sharer_quarter}, {path: embedded:sharer, dtype: float32}]"
    words = ["analyze", "scaling", "--fit", "[quickstart]", "--test", "[quickstart]", "--sharers", sharers]
    words += ["--output_dir", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        main(words)
    main(words)
    assert [options.get("ckpt_path") for options in trained] == [None, None, "last"]
    assert trained[2]["model.sharers"] == [{"path": "embedded:sharer", "dtype": "float32"}]
    points = json.loads((tmp_path / "scaling.json").read_text())["sharers"]
    assert [(point["sharer"], point["gain"]) for point in points] == [(0.5, 0.5), (1.0, 1.0)]
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert "gain" in capsys.readouterr().out
    main(words)
    assert len(trained) == 3


@pytest.mark.slow
def test_scaling_of_the_embedded_pair(short_test: str, tmp_path: Path) -> None:
    fit = Path(tmp_path / "fit.yaml")
    text = yaml.safe_load((CONFIGS.parent / "fit" / "quickstart.yaml").read_text())
    text["trainer"] |= {"max_steps": 2, "val_check_interval": 2, "limit_val_batches": 1}
    fit.write_text(yaml.safe_dump(text))
    sharers = "[{path: embedded:sharer_first_half}, {path: embedded:sharer}]"
    words = ["--fit", f"[{fit}]", "--test", f"[{short_test}]", "--sharers", sharers, "--output_dir", str(tmp_path)]
    main(["analyze", "scaling", *words])
    points = json.loads((tmp_path / "scaling.json").read_text())["sharers"]
    assert [point["name"] for point in points] == ["embedded:sharer_first_half", "embedded:sharer"]
    main(["analyze", "scaling", "--fusers", json.dumps([str(f.parent) for f in tmp_path.rglob("fuser_config.json")]),
          "--test", f"[{short_test}]", "--output_dir", str(tmp_path / "again")])  # fmt: skip
    again = json.loads((tmp_path / "again" / "scaling.json").read_text())["sharers"]
    assert [point["c2c"] for point in again] == [point["c2c"] for point in points]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tokens", "--fuser", "x"], "nothing is asked"),
        (["tokens", "--fuser", "x", "--document", "d.txt"], "--document belongs to --question"),
        (["tokens", "--fuser", "x", "--document", "d.txt", "--question", "?"], "cannot be read"),
        (["proportion", "--test", "[quickstart]", "--shares", "[1.2]"], "must lie in [0, 1]"),
        (["length"], "nothing is measured"),
        (["length", "--predictions", "none"], "no predictions.jsonl"),
        (["scaling", "--test", "[quickstart]"], "nothing is trained"),
        (["scaling", "--test", "[quickstart]", "--fusers", "[a]", "--fit", "[quickstart]"], "give either `fusers`"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_mistakes_are_named_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["analyze", *words])
    assert end.value.code == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())

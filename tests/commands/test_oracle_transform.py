"""`lightning oracle transform` on the embedded pair, and what it refuses."""

import contextlib
import json
from pathlib import Path

import pytest

from c2c_lightning.cli import main
from tests.hybrids import hybrid_model
from tests.tiny import tiny_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs" / "oracle"
CONFIG = str(CONFIGS / "quickstart_transform.yaml")
SHORT = ["--trainer.max_steps", "3", "--measure.samples", "24", "--measure.perplexity", "5",
         "--data.batch_size", "8", "--model.maps.hidden_dim", "16", "--trainer.limit_val_batches", "0"]  # fmt: skip


def run(folder: Path, *options: str) -> None:
    main(["oracle", "transform", "--config", CONFIG, *SHORT, "--trainer.default_root_dir", str(folder), *options])


@pytest.mark.slow
def test_trains_measures_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--model.layers", "last")
    report = json.loads((tmp_path / "transform.json").read_text())
    assert report["version"] == 1
    assert report["layers"] == [[3, 5]]
    assert report["samples"] == 24
    assert report["steps"] == 3
    assert report["seed"] == 42
    for name in ("mlp", "ridge", "mean"):
        found = report["maps"][name]
        for part in ("keys", "position_free_keys", "values"):
            scores = found["entries"][part]
            assert set(scores) == {"relative_error", "cosine", "cosine_per_head", "neighbours", "classifier"}
            assert 0 <= scores["classifier"]["last"]["mean"] <= 1
        assert set(found["loss_change"]["keys"]) == {"all_layers", "last_layer"}
        assert -1 <= found["attention"]["keys"]["last"]["mean"] <= 1
    assert (tmp_path / "transform.png").stat().st_size > 1000
    output = capsys.readouterr().out
    assert "nats per response token" in output
    assert max(len(line) for line in output.splitlines()) <= 80
    # Resumed at its end: measured again, with equal numbers.
    run(tmp_path, "--model.layers", "last", "--ckpt_path", "last")
    assert json.loads((tmp_path / "transform.json").read_text()) == report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--measure.samples", "40", "--measure.perplexity", "40"], "below the number of samples, which is 40"),
        (["--measure.samples", "3"], "must be at least 20"),
        (["--measure.samples", "600"], "480 rows are held out, but `measure.samples` is 600"),
        (["--model.sharer.path", "embedded:receiver", "--model.receiver.path", "embedded:sharer",
          "--model.layer_alignment", "terminal"], "sharer layer 0 with 3 receiver layers"),
        (["--model.maps.dropout", "1.5"], "dropout"),
        (["--trainer.max_steps", "1", "--data.batch_size", "1"], "cannot be fitted on"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_writes_no_report(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "out", *options)
    error = capsys.readouterr().err
    assert end.value.code in (1, 2)
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "transform.json").exists()
    assert not (tmp_path / "out" / "transform.png").exists()


def test_a_hybrid_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hybrid_model("qwen3_next").save_pretrained(tmp_path / "hybrid")
    tiny_tokenizer().save_pretrained(tmp_path / "hybrid")
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "out", "--model.sharer.path", str(tmp_path / "hybrid"))
    assert end.value.code == 1
    assert "of its 4 layers only" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_an_earlier_report_is_moved_aside_by_a_new_run(tmp_path: Path) -> None:
    tmp_path.joinpath("transform.json").write_text("{}")
    run(tmp_path, "--model.layers", "last")
    assert (tmp_path / "previous" / "1" / "transform.json").read_text() == "{}"


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*transform.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_understood(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["oracle", "transform", "--config", str(config), "--print_config"])
    assert end.value.code in (0, None)
    assert "perplexity: 50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "shown"), [("--help", "--measure.samples"), ("--help.trainer", "--trainer.max_steps")]
)
def test_help(option: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["oracle", "transform", option])
    assert shown in capsys.readouterr().out

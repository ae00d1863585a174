"""`lightning analyze` over the embedded pair."""

import json
from pathlib import Path

import datasets
import pytest

from c2c_lightning.cli import main
from c2c_lightning.commands.analyze import ANALYSES
from c2c_lightning.evaluation.prediction_log import PredictionLog
from tests.evaluation.report.test_report import answers

CONFIG = str(Path(__file__).parents[2] / "configs" / "analyze" / "quickstart_alignment.yaml")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_alignment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyze", "alignment", "--config", CONFIG, "--max_rows", "20", "--output_dir", str(tmp_path / "run")])
    assert "100.0%" in capsys.readouterr().out
    assert (tmp_path / "run" / "alignment.html").exists()
    assert json.loads((tmp_path / "run" / "alignment.json").read_text())["sharers"][0]["conversations"] == 20


def test_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--max_rows", "60", "--max_tokens_per_batch", "500", "--output_dir", str(tmp_path / "run")]
    main(["analyze", "padding", "--config", CONFIG, *options])
    assert "60 rows" in capsys.readouterr().out
    released, by_rows, by_tokens = json.loads((tmp_path / "run" / "padding.json").read_text())["ways"]
    assert released["share"] > by_rows["share"] > 0
    assert by_tokens["padded_tokens"] <= 500 * by_tokens["batches"]


@pytest.mark.parametrize("words", [[], ["frob"]])
def test_what_to_analyze_must_be_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["analyze", *words])
    assert "alignment|padding" in capsys.readouterr().err


def test_the_help_lists_all_analyses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["analyze", "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"\n  {name} " in text and f"lightning analyze {name} --config" in text for name in ANALYSES)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["aligment"], "Did you mean `alignment`?\nSee `lightning analyze --help`."),
        (["alignment"], "See `lightning analyze alignment --help`."),
    ],
)
def test_a_usage_error_names_the_help(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["analyze", *words])
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("part", ["", "predictions.jsonl"])
def test_overlap(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = PredictionLog(tmp_path / "test")
    log.start("x", {})
    log.append([*answers("receiver", "1100"), *answers("sharer", "1010"), *answers("c2c", "0110")])
    log.join([p.key for p in log.read()])
    predictions = str(tmp_path / "test" / part)
    main(["analyze", "overlap", "--predictions", predictions, "--output_dir", str(tmp_path / "run")])
    found = json.loads((tmp_path / "run" / "overlap.json").read_text())["benchmarks"]["bench"]
    assert (found["regions"]["receiver+fused"], found["regions"]["sharer+fused"]) == (1, 1)
    assert (found["rates"]["kept"]["value"], found["rates"]["gained"]["value"]) == (0.5, 1.0)
    words = capsys.readouterr().out.split()
    assert {"kept", "gained", "bound", "50.0", "100.0", "1/2"} <= set(words)
    assert (tmp_path / "run" / "bench_overlap.png").exists()


def test_overlap_needs_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["analyze", "overlap", "--predictions", str(tmp_path), "--output_dir", str(tmp_path / "run")])
    assert "no predictions.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

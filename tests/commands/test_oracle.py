"""`lightning oracle`."""

import json
from pathlib import Path

import pytest

from c2c_lightning.cli import main
from c2c_lightning.commands.oracle import ORACLES

CONFIGS = Path(__file__).parents[2] / "configs" / "oracle"
CONFIG = str(CONFIGS / "quickstart_enrichment.yaml")


def test_the_help_lists_all_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["oracle", "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"\n  {name} " in text and f"lightning oracle {name} --config" in text for name in ORACLES)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "an oracle experiment must be named"),
        (["enrichmint"], "Did you mean `enrichment`?\nSee `lightning oracle --help`."),
        (["enrichment"], "See `lightning oracle enrichment --help`."),
    ],
)
def test_a_usage_error_names_the_help(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["oracle", *words])
    assert end.value.code == 2
    assert expected in capsys.readouterr().err


def test_enrichment_writes_numbers_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    args = ["oracle", "enrichment", "--config", CONFIG, "--questions.limit", "12", "--output_dir", str(tmp_path)]
    main(args)
    text = capsys.readouterr().out
    assert "12 questions" in text
    assert "as_released" in text
    report = json.loads((tmp_path / "enrichment.json").read_text())
    assert (report["direct"]["n"], len(report["variants"]["clean"]["layers"])) == (12, 4)
    assert (tmp_path / "enrichment.png").stat().st_size > 10_000
    # Again: nothing is left to answer, and the report is the same.
    times = (tmp_path / "single_layers.jsonl").stat().st_mtime_ns
    main(args)
    assert (tmp_path / "single_layers.jsonl").stat().st_mtime_ns == times
    assert json.loads((tmp_path / "enrichment.json").read_text()) == report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_shots", "500"], "fewer than 500 shots"),
        (["--num_shots", "0"], "`num_shots` is 0"),
        (["--num_shots", "200"], "the context of embedded:receiver has"),
        (["--shots.path", "embedded:facts/private_context_train", "--questions.limit", "1"], "cannot be split"),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["oracle", "enrichment", "--config", CONFIG, *options, "--output_dir", str(tmp_path / "run")])
    assert end.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("enrichment_*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_understood(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["oracle", "enrichment", "--config", str(path), "--print_config"])
    assert end.value.code in (0, None)
    assert "num_shots: 5" in capsys.readouterr().out

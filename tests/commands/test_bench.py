"""`lightning bench` as a user calls it."""

import json
from pathlib import Path

import pytest
import yaml

from c2c_lightning.cli import main
from tests.profiling.pairs import RECEIVER, SHARER

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "bench").glob("*.yaml"))

PAIR = {
    "class_path": "c2c_lightning.profiling.model_pair.RandomPair",
    "init_args": {"receiver": RECEIVER, "sharers": [SHARER], "fuser": {"hidden_dim": 8, "intermediate_dim": 8}},
}


def test_results_are_json_on_standard_output_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(PAIR))
    benchmark = {
        "class_path": "c2c_lightning.profiling.train_step.TrainStep",
        "init_args": {"workload": {"num_samples": 2, "batch_size": 2}, "rounds": 1, "product_size": 8},
    }
    run = {"pair": "pair.yaml", "benchmarks": [benchmark], "output_dir": str(tmp_path / "out")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    main(["bench", "--config", str(tmp_path / "run.yaml"), "--device", "cpu", "--pair.init_args.seed", "3"])
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert results["training_step"]["samples"] == 2
    assert results["environment"]["num_threads"] == 1
    assert "samples_per_second" in said.err
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_is_understood(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "--config", str(path), "--print_config"])
    assert exit_.value.code in (0, None)
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["pair"]["class_path"].endswith("RandomPair")
    assert config["benchmarks"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "lightning bench --help"),
        (["--config", "there_is_none.yaml"], 2, "there_is_none.yaml"),
    ],
)
def test_mistakes(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *arguments])
    assert exit_.value.code == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_help_names_the_shipped_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "--help"])
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    names = {path.name for path in CONFIGS} - {"paper_size.yaml"}  # its benchmark is not part of the package
    assert all(f"configs/bench/{name}" in said for name in names)

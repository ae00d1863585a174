"""The table of fuser kinds: one command trains, evaluates and continues where it was interrupted."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.size_table import main

FIT, EVAL = "configs/fit/quickstart.yaml", "configs/eval/quickstart.yaml"


@pytest.mark.slow
def test_one_command_makes_the_table_and_repeats_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = {"trainer": {"max_steps": 2, "limit_val_batches": 1, "val_check_interval": 2}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short))
    few = {"data": {"benchmarks": [{"name": "quickstart", "limit": 8}]}}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few))
    command = ["--fit", FIT, str(tmp_path / "short.yaml"), "--eval", EVAL, str(tmp_path / "few.yaml")]
    command += ["--kinds", "ridge_20_replace", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    (ridge,) = json.loads((tmp_path / "out" / "size_table.json").read_text())["rows"]
    # Four layers, keys and values: 60 to 20 to 64 dimensions, and a bias.
    assert ridge["parameters"] == 4 * 2 * (60 * 20 + 20 * 64 + 64)
    assert ridge["bytes_per_prompt"] > 0
    assert ridge["cpu_seconds"] > 0
    assert ridge["n"] == 8
    first = (tmp_path / "out" / "size_table.md").read_text()
    assert "| `ridge_20_replace` |" in first
    capsys.readouterr()
    assert main(command) == 0
    assert "fit" not in capsys.readouterr().err, "finished runs are not repeated"
    assert (tmp_path / "out" / "size_table.md").read_text() == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--kinds", "lowrank"], "'lowrank' is neither a YAML file nor one of c2c"),
        (["--fit", "nowhere.yaml"], "there is no file nowhere.yaml"),
    ],
)
def test_unknown_names_are_refused(changed: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--fit", FIT, "--eval", EVAL, *changed])
    assert message in capsys.readouterr().err

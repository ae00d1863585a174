"""`lightning lm-eval`: the harness with the model `c2c`, and no script with another package's name."""

import json
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import distributions
from pathlib import Path

import pytest

from c2c_lightning.cli import main
from tests.training.runs import SMALL

pytest.importorskip("lm_eval")

ROOT = Path(__file__).parents[2]
TASK = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{rows}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


def test_no_script_has_the_name_of_another_packages_script() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    others = {
        script.name
        for distribution in distributions()
        if distribution.name != project["name"]
        for script in distribution.entry_points.select(group="console_scripts")
    }
    assert not others & set(project["scripts"])


def test_help_is_the_harness_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["lm-eval", "--help"])
    assert exit_.value.code == 0
    assert "Language Model Evaluation Harness" in capsys.readouterr().out


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The scripts of a fresh environment into which this package is installed; it sees the packages of this one."""
    venv.create(tmp_path / "venv", symlinks=True)
    paths = {name: Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    [packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(paths.values())))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--prefix", str(tmp_path / "venv")]
    subprocess.run([sys.executable, "-m", "pip", "install", "--ignore-installed", *options, str(ROOT)], check=True)
    return tmp_path / "venv" / "bin"


@pytest.mark.slow
def test_the_installed_script_runs_a_task(scripts: Path, models: Path, tmp_path: Path) -> None:
    from c2c_lightning.fuser.config import FuserConfig
    from c2c_lightning.model.c2c import C2CModel
    from c2c_lightning.model.load_lm import load_frozen

    pair = [load_frozen(str(models / name)) for name in ("receiver", "sharer")]
    fuser = C2CModel(pair[0], pair[1:], FuserConfig(**SMALL)).save_pretrained(tmp_path / "fuser")
    assert not (scripts / "lm_eval").exists()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "Where?", "choices": ["here", "there"], "answer": 1}) + "\n")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny_choice.yaml").write_text(TASK.format(rows=rows))
    model = ["--model", "c2c", "--model_args", f"fuser={fuser}", "--output_path", str(tmp_path / "results")]
    task = ["--tasks", "tiny_choice", "--include_path", str(tmp_path / "tasks")]
    done = subprocess.run(
        [scripts / "lightning", "lm-eval", *model, *task], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [results] = (tmp_path / "results").rglob("results_*.json")
    assert json.loads(results.read_text())["results"]["tiny_choice"]["acc,none"] in (0.0, 1.0)

"""The JSON schema for editors accepts every shipped configuration and finds mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from c2c_lightning.cli import main
from c2c_lightning.commands.config_schema import config_schema

jsonschema = pytest.importorskip("jsonschema")

CONFIGS = Path(__file__).parents[2] / "configs"
FOLDERS = {"fit": ("fit", "trainer", "logger"), "test": ("eval",), "predict": ("predict",)}


@pytest.fixture(scope="module")
def validators() -> dict[str, Any]:
    """A validator for each command."""
    return {command: jsonschema.Draft202012Validator(config_schema(command)) for command in FOLDERS}


@pytest.mark.parametrize("command", FOLDERS)
def test_shipped_configurations_are_valid(command: str, validators: dict[str, Any]) -> None:
    files = [path for folder in FOLDERS[command] for path in (CONFIGS / folder).glob("*.yaml")]
    assert files
    for file in files:
        problems = [
            problem.message[:200] for problem in validators[command].iter_errors(yaml.safe_load(file.read_text()))
        ]
        assert problems == [], file.name


@pytest.mark.parametrize(
    "mistake",
    [
        {"modell": {}},
        {"model": {"fuser": {"hiden_dim": 8}}},
        {"model": {"fuser": {"hidden_dim": "wide"}}},
        {"model": {"fuser": {"layer_alignment": "sideways"}}},
        {"trainer": {"max_step": 3}},
        {"data": {"train": {"class_path": "c2c_lightning.data.sources.Messages", "init_args": {"pth": "x"}}}},
        {"trainer": {"callbacks": [{"class": "x"}]}},
    ],
    ids=str,
)
def test_mistakes_are_found(mistake: dict[str, Any], validators: dict[str, Any]) -> None:
    assert list(validators["fit"].iter_errors(mistake))


def test_the_schema_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "schema", "predict"])
    printed = json.loads(capsys.readouterr().out)
    main(["config", "schema", "predict", "--output", str(tmp_path / "predict.json")])
    assert json.loads((tmp_path / "predict.json").read_text()) == printed


def test_a_configuration_may_name_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"# yaml-language-server: $schema=fit.json\n{(CONFIGS / 'fit' / 'quickstart.yaml').read_text()}")
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(file), "--print_config"])
    assert "embedded:receiver" in capsys.readouterr().out


def test_a_run_before_does_not_matter() -> None:
    # Lightning makes such a class, which no module holds, for the optimizer of a run.
    made = type("LightningAdamW", (torch.optim.AdamW,), {"__module__": "lightning.pytorch.core.optimizer"})
    assert config_schema("fit")["properties"]["model"]
    del made

"""The configurations of the package: found by name, listed, and copied as files that stand alone."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentError

from c2c_lightning.cli import main
from c2c_lightning.commands.shipped_configs import config_path, shipped_configs, with_config_paths

CONFIGS = Path(__file__).parents[2] / "configs"


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "name", "file"),
    [
        ("fit", "quickstart", "fit/quickstart"),
        ("validate", "quickstart", "fit/quickstart"),
        ("test", "quickstart", "eval/quickstart"),
        ("predict", "quickstart", "predict/quickstart"),
        ("fit", "test/quickstart", "eval/quickstart"),
        ("fit", "wandb", "logger/wandb"),
        ("test", "trainer/ddp", "trainer/ddp"),
        ("bench", "step", "bench/step"),
        ("fit", "configs/fit/quickstart.yaml", "fit/quickstart"),
    ],
)
def test_a_name_is_resolved_by_the_command(command: str, name: str, file: str) -> None:
    assert config_path(name, command) == CONFIGS / f"{file}.yaml"


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config", "quickstart", "--config=wandb", "-c", "ddp", "--seed_everything", "quickstart"]
    resolved = with_config_paths(words, "fit")
    assert resolved[2] == str(CONFIGS / "fit" / "quickstart.yaml")
    assert resolved[3] == f"--config={CONFIGS / 'logger' / 'wandb.yaml'}"
    assert resolved[5] == str(CONFIGS / "trainer" / "ddp.yaml")
    assert resolved[7] == "quickstart"
    Path("quickstart").write_text("{}")
    assert with_config_paths(words, "fit")[2] == "quickstart"


def test_the_options_of_another_program_are_left_alone() -> None:
    assert with_config_paths(["lm-eval", "--config", "quickstart"], "lm-eval") == ["lm-eval", "--config", "quickstart"]


def test_values_that_are_no_names_are_left_alone() -> None:
    words = ["fit", "--config", "{model: null}", "--config", "../nowhere.yaml"]
    assert with_config_paths(words, "fit") == words


def test_an_unknown_name_is_one_message_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError, match="quickstart_naive"):
        with_config_paths(["fit", "--config", "quickstart_naif"], "fit")
    assert "Did you mean `quickstart`?" in fails(capsys, 2, "fit", "--config", "quickstrat")
    assert "config list" in fails(capsys, 1, "config", "show", "frob")


def test_a_run_is_configured_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "--config", "qwen3_0.6b_from_qwen2.5_0.5b", "--config", "wandb", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["sharers"][0]["path"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert config["data"]["max_rows"] == 500000
    assert config["trainer"]["logger"]["class_path"].endswith("WandbLogger")


def test_the_list_has_command_name_and_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:4] == ["fit", "quickstart", "The", "embedded"] for line in lines)
    assert any(line.split()[:2] == ["test", "quickstart"] for line in lines)
    assert any(line.split()[:2] == ["(part)", "trainer/ddp"] for line in lines)
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("config", shipped_configs(), ids=lambda config: config.name)
def test_every_configuration_begins_with_its_purpose_in_one_line(config: object) -> None:
    first = config.path.read_text().splitlines()[0]  # type: ignore[attr-defined]
    assert first.startswith(f"# {config.purpose}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", shipped_configs(), ids=lambda config: config.name)
def test_a_copy_stands_alone(config: object, tmp_path: Path) -> None:
    def resolved(value: object, folder: Path) -> object:
        """A slow twin on parsed values: each text that names a YAML file is replaced by its content."""
        if isinstance(value, dict):
            return {key: resolved(part, folder) for key, part in value.items()}
        if isinstance(value, list):
            return [resolved(part, folder) for part in value]
        if isinstance(value, str) and value.endswith(".yaml"):
            return resolved(yaml.safe_load((folder / value).read_text()), (folder / value).parent)
        return value

    path: Path = config.path  # type: ignore[attr-defined]
    main(["config", "copy", config.name, str(tmp_path / "own.yaml")])  # type: ignore[attr-defined]
    assert yaml.safe_load((tmp_path / "own.yaml").read_text()) == resolved(
        yaml.safe_load(path.read_text()), path.parent
    )


def test_a_name_of_several_commands_is_shown_and_copied_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["config", "show", "quickstart"])
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) == 3
    main(["config", "show", "test/quickstart"])
    assert capsys.readouterr().out == (CONFIGS / "eval" / "quickstart.yaml").read_text()
    main(["config", "copy", "quickstart", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "eval_quickstart.yaml",
        "fit_quickstart.yaml",
        "predict_quickstart.yaml",
    ]
    assert "several configurations" in fails(capsys, 1, "config", "copy", "quickstart", str(tmp_path / "one.yaml"))


def test_a_copy_replaces_nothing_unless_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    assert "--force" in fails(capsys, 1, "config", "copy", "fit/quickstart", str(target))
    assert target.read_text() == "mine"
    main(["config", "copy", "fit/quickstart", str(target), "--force"])
    assert target.read_text() == (CONFIGS / "fit" / "quickstart.yaml").read_text()


@pytest.mark.parametrize("words", [["config"], ["config", "frob"]])
def test_an_unknown_action_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "list|show|copy|schema" in fails(capsys, 2, *words)

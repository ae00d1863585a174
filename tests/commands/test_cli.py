"""`lightning` without a command of its own."""

import re
from pathlib import Path

import pytest

from c2c_lightning.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "eval" / "quickstart.yaml"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert re.fullmatch(r"c2c_lightning \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["lm-eval", "--model", "c2c", "--model_args", "fuser=/nope", "--tasks", "no_such_task"], "no_such_task"),
        (["test", "--model.max_new_tokens", "0"], "at least 1 token"),
    ],
)
def test_mistakes_in_an_evaluation_are_one_message(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if command[0] == "test":
        command = [command[0], "--config", str(CONFIG), *command[1:]]
    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["chat", "serve", "sharer", "export", "convert", "init", "bench", "doctor"])
def test_help_shows_no_default_null(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "default: null" not in " ".join(capsys.readouterr().out.split())


def test_the_examples_of_sharer_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sharer", "--help"])
    assert "\n  lightning serve --fuser DIR --sharers http://127.0.0.1:8100" in capsys.readouterr().out

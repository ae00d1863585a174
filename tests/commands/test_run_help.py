"""Help of the Trainer's commands is read from the sources: it has the options and defaults of the parser itself."""

from typing import Any

import pytest

from c2c_lightning.cli import main
from c2c_lightning.commands.run_classes import RUN_COMMANDS
from c2c_lightning.commands.run_help import groups_of
from c2c_lightning.commands.trainer_cli import run_parser


def options_of(command: str) -> dict[str, str | None]:
    """Each option of the help with its default."""
    return {f"{group.key}.{option.name}": option.default for group in groups_of(command) for option in group.options}


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code in (0, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_the_options_are_those_of_the_parser(command: str) -> None:
    words = {word.removeprefix("--") for action in run_parser(command)._actions for word in action.option_strings}
    # `model` itself takes a file; `KEY.help` and `KEY+` are the parser's own.
    known = {word for word in words if word.startswith(("model.", "data.")) and not word.endswith((".help", "+"))}
    groups = {group.key for group in groups_of(command)}
    assert set(options_of(command)) == known - groups


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_the_defaults_are_those_of_the_parser(command: str) -> None:
    defaults: Any = run_parser(command).get_defaults(skip_validation=True)
    compared = 0
    for key, text in options_of(command).items():
        value = defaults.get(key)
        if text is not None and isinstance(value, bool | int | float | str | None) and "(" not in text:
            assert text == ("none" if value is None else str(value)), key
            compared += 1
    assert compared > len(options_of(command)) / 2


def test_every_option_has_a_description_and_every_group_a_purpose() -> None:
    for command in RUN_COMMANDS:
        for group in groups_of(command):
            assert group.purpose, group.key
            assert not [option.name for option in group.options if not option.help], group.key


def test_our_options_come_first_and_the_trainers_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "fit", "--help")
    places = [
        text.index(part) for part in ("--config ", "--model.sharers", "--model.fuser.hidden_dim", "--data.train ")
    ]
    assert places == sorted(places)
    assert "--trainer.max_steps" not in text
    assert "--help.trainer" in text
    main(["fit", "--help.trainer"])
    trainer = capsys.readouterr().out
    assert "--trainer.max_steps" in trainer
    assert "--model." not in trainer


def test_the_help_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "fit", "--model.fuser.help")
    assert "{terminal,depth," in text
    assert "--model.fuser.complex.swiglu" in text
    assert "--model.sharers" not in text


def test_the_help_of_a_class_is_the_parsers(capsys: pytest.CaptureFixture[str]) -> None:
    assert "max_row_bytes" in shown(capsys, "fit", "--data.train.help", "c2c_lightning.data.sources.Messages")

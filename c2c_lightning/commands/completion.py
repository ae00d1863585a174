"""`lightning --print_shtab SHELL`: a completion script for bash, zsh or tcsh."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from jsonargparse import ArgumentError, ArgumentParser

from c2c_lightning.commands.parsing import parser_of
from c2c_lightning.commands.run_classes import RUN_COMMANDS
from c2c_lightning.errors import MissingExtraError

SHELLS = ("bash", "zsh", "tcsh")
#: Commands whose options are another program's.
_FOREIGN = ("lm-eval",)
#: Commands with a second word, and the table of these words.
NESTED = {"analyze": "ANALYSES", "oracle": "ORACLES", "config": "ACTIONS", "fuser-hub": "ACTIONS"}

Commands = Mapping[str, tuple[str, str]]


def print_completion(args: Sequence[str], commands: Commands) -> None:
    """Print the completion script of a shell.

    Args:
        args: the shell.
        commands: function and purpose of each command.

    Raises:
        ArgumentError: an unknown shell.
        MissingExtraError: shtab is not installed.
    """
    if len(args) != 1 or args[0] not in SHELLS:
        raise ArgumentError(None, f"name a shell: lightning --print_shtab {'|'.join(SHELLS)}")
    if find_spec("shtab") is None:
        raise MissingExtraError("shtab is not installed: pip install 'c2c-lightning[completion]'")
    sys.stdout.write(whole_parser(commands).get_completion_script(f"shtab-{args[0]}"))


def whole_parser(commands: Commands) -> ArgumentParser:
    """One parser with all commands; it knows all options, but runs nothing."""
    root = ArgumentParser(prog="lightning")
    subcommands = root.add_subcommands()
    for name, (path, purpose) in commands.items():
        module, _, function = path.rpartition(".")
        loaded = importlib.import_module(f"c2c_lightning.commands.{module}")
        run = getattr(loaded, function)
        if name in NESTED:
            parser = ArgumentParser()
            # Before its own subcommands, as jsonargparse asks for.
            subcommands.add_subcommand(name, parser, help=purpose)
            nested = parser.add_subcommands()
            for word in getattr(loaded, NESTED[name]):
                nested.add_subcommand(word, parser_of(run, [name, word]))
        elif name in RUN_COMMANDS:
            subcommands.add_subcommand(name, loaded.run_parser(name), help=purpose)
        else:
            parser = ArgumentParser() if name in _FOREIGN else parser_of(run, [name])
            subcommands.add_subcommand(name, parser, help=purpose)
    return root

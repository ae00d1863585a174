"""The command line: `lightning COMMAND …`. Nothing heavy is imported before the command is known."""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from rich.console import Console
from rich.table import Column, Table

from c2c_lightning.commands.terminal_log import VERBOSE, adopt_libraries, configure_logging

Command = Callable[[Sequence[str]], None]

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init.run_init", "check a pair of models and rows, and write a first configuration"),
    "fit": ("trainer_cli.run_trainer", "train a fuser"),
    "validate": ("trainer_cli.run_trainer", "loss of a fuser, and of the receiver alone, on validation data"),
    "test": ("trainer_cli.run_trainer", "benchmarks over responders: receiver, sharer, T2T, routing, C2C, controls"),
    "predict": ("trainer_cli.run_trainer", "write answers to a file of conversations"),
    "export": ("fuser_files.run_export", "Lightning checkpoint to fuser directory"),
    "convert": ("fuser_files.run_convert", "the authors' published layout to ours, and back"),
    "analyze": (
        "analyze.run_analyze",
        "alignment, padding, a fuser's gates, ranks, layers and tokens, who is right where, scaling, length",
    ),
    "oracle": ("oracle.run_oracle", "the paper's oracle experiments"),
    "chat": ("terminal_chat.run_chat", "talk in the terminal"),
    "serve": ("serve.run_serve", "OpenAI-compatible server: receiver, sharers, text-to-text, C2C by model name"),
    "lm-eval": ("lm_eval.run_lm_eval", "lm-evaluation-harness with the model `c2c`"),
    "fuser-hub": ("fuser_hub.run_fuser_hub", "fusers between many models from common parts: fit, export, test, …"),
    "config": ("config_command.run_config", "list, show or copy the configurations that come with the package"),
    "doctor": ("doctor.run_doctor", "versions, devices, extras, cache folders, and who owns the command `lightning`"),
    "sharer": ("sharer.run_sharer", "hold a sharer for receivers in other processes"),
    "bench": ("bench.run_bench", "timings and memory as JSON: training step, inference, sweeps, data loading"),
}
"""Function of each command, below `c2c_lightning.commands`, and its purpose."""

SHELL_COMPLETION = "--print_shtab"
"""Option that prints a completion script."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    A mistake of the user ends with one message and exit code 2 for usage, 1 for everything else. An error that only a
    change of this package can mend keeps its traceback.

    Args:
        args: the command and its arguments, default those of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    given = [word for word in words if word != VERBOSE]
    errors = Console(stderr=True)
    if not given or given[0] in ("-h", "--help"):
        return _help(Console())
    if given[0] == "--version":
        return Console().print(f"c2c_lightning {version('c2c-lightning')}", highlight=False)
    if given[0] not in (*COMMANDS, SHELL_COMPLETION):
        _fail(errors, _unknown(given[0]), 2)
    configure_logging(is_verbose=VERBOSE in words)
    try:
        _run(given, is_verbose=VERBOSE in words)
    except Exception as error:
        _end(errors, error, given)


def _unknown(name: str) -> str:
    from c2c_lightning.commands.parsing import did_you_mean

    return f"there is no command {name!r}; commands are {', '.join(COMMANDS)}.{did_you_mean(name, COMMANDS)}"


def _run(given: Sequence[str], is_verbose: bool) -> None:
    """Import a command and all that it needs, and run it."""
    from c2c_lightning.commands.parsing import bound_yaml
    from c2c_lightning.commands.run_help import is_help, show_help
    from c2c_lightning.commands.shipped_configs import with_config_paths

    if given[0] == SHELL_COMPLETION:
        from c2c_lightning.commands.completion import print_completion

        return print_completion(given[1:], COMMANDS)
    if is_help(given):
        show_help(given)
        raise SystemExit(0)
    bound_yaml()
    module, _, function = COMMANDS[given[0]][0].rpartition(".")
    args = with_config_paths(given, given[0])
    command: Command = getattr(importlib.import_module(f"c2c_lightning.commands.{module}"), function)
    adopt_libraries(given, is_verbose)
    command(args)


def _end(errors: Console, error: Exception, given: Sequence[str]) -> None:
    """End with the message of a user's mistake; raise an error of this package."""
    from jsonargparse import ArgumentError

    from c2c_lightning.commands.parsing import with_file_name
    from c2c_lightning.commands.user_errors import user_message

    if isinstance(error, ArgumentError):
        _fail(errors, f"{with_file_name(str(error), given)}\n{_hint(given)}", 2)
    message = user_message(error)
    if message is None:
        raise error
    _fail(errors, message, 1)


def _help(console: Console) -> None:
    more = {
        VERBOSE: "with any command: progress bars and notes of libraries too",
        "--version": "version of this package",
        f"{SHELL_COMPLETION} SHELL": "completion script for bash, zsh or tcsh",
    }
    console.print("usage: lightning COMMAND [--help] [options]", markup=False)
    for rows in ({name: purpose for name, (_, purpose) in COMMANDS.items()}, more):
        table = Table.grid(Column(no_wrap=True), Column(), padding=(0, 2))
        for name, purpose in rows.items():
            table.add_row(f"  {name}", purpose)
        console.print("", table)
    console.print("\n`c2c-lightning` and `python -m c2c_lightning` are the same program.", markup=False)


def _hint(given: Sequence[str]) -> str:
    """Where to find the right arguments."""
    from c2c_lightning.commands.run_classes import RUNS, run_name

    name = run_name(given)
    if name in RUNS and not any(part.startswith(("--config", "-c")) for part in given[1:]):
        return f"No configuration is given. Say for example `lightning {name} --config {RUNS[name].example}`."
    if given[0] == SHELL_COMPLETION:
        return "See `lightning --help`."
    return f"See `lightning {' '.join(given[: _num_command_words(given)])} --help`."


def _num_command_words(given: Sequence[str]) -> int:
    """2 where the second word names an analysis or another subcommand, which has options of its own."""
    from c2c_lightning.commands.completion import NESTED

    if given[0] not in NESTED:
        return 1
    module = importlib.import_module(f"c2c_lightning.commands.{COMMANDS[given[0]][0].rpartition('.')[0]}")
    return 2 if given[1:2] and given[1] in getattr(module, NESTED[given[0]]) else 1


def _fail(console: Console, message: str, code: int) -> None:
    console.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(code)

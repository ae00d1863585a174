"""Help of the Trainer's commands: our options first, each group with its purpose, the Trainer's on request."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from c2c_lightning.commands.run_classes import RUN_COMMANDS, RUNS, run_name
from c2c_lightning.commands.signatures import Option, class_options

HELP = """\
Examples:
  lightning {command} --config {example}
  lightning {command} --config RUN.yaml --config OVERLAY.yaml --trainer.devices 2
  lightning {command} --config RUN.yaml --print_config      what a run would use
A later --config and later options win over earlier ones. Write options in full.
A configuration is a YAML file, or one of the package by name (`lightning config list`)."""

MORE = """\
More help:
  lightning {command} --help.trainer       Lightning's Trainer (--trainer.…): devices, precision, max_steps, …
  lightning {command} --{group}.help    one group
  lightning {command} --KEY.help CLASS     a class that is given by `class_path`, as in --data.train.help Messages"""

SCHEMA = "  lightning config schema {command}        all options as a JSON schema, for editors"

RUN_OPTIONS = [
    Option("config", "FILE or NAME", "none", "configuration; may be repeated, later ones win"),
    Option("print_config", "[=flags]", "none", "print the configuration after all other options, and exit"),
    Option("seed_everything", "int | bool", "42", "seed of all random numbers; true for a random one"),
    Option("ckpt_path", "PATH", "none", "checkpoint: `fit` resumes it, `validate` measures it"),
]


@dataclass(frozen=True)
class Group:
    """Options with a common key.

    Attributes:
        key: dotted key, empty for the options of the run itself.
        purpose: what they are for.
        options: those that are no groups themselves.
    """

    key: str
    purpose: str
    options: tuple[Option, ...]


def is_help(args: Sequence[str]) -> bool:
    """Whether a command line of a Trainer command asks for help that needs no parser."""
    name = run_name(args)
    if name not in RUNS:
        return False
    if {"-h", "--help"} & set(args[1:]):
        return True
    # The sources are read for a word of help only, not at every start of a run.
    return args[-1].endswith(".help") and any(f"--{group.key}.help" == args[-1] for group in groups_of(name))


def show_help(args: Sequence[str]) -> None:
    """Print the whole help, or that of one group."""
    command = run_name(args)
    groups = list(groups_of(command))
    wanted = [group for group in groups if f"--{group.key}.help" == args[-1]]
    if wanted:
        key = wanted[0].key
        shown = [group for group in groups if group.key == key or group.key.startswith(f"{key}.")]
        return _parser(command, shown, f"Options of `{key}`.", "").print_help()
    run = RUNS[command]
    about = f"{run.about}\n\n{HELP.format(command=command, example=run.example)}"
    example = next((group.key for group in groups if group.key == "model.fuser"), "model")
    first = Group("", "Options of the run.", tuple(RUN_OPTIONS))
    more = f"{MORE}\n{SCHEMA}" if command in RUN_COMMANDS else MORE
    _parser(command, [first, *groups], about, more.format(command=command, group=example)).print_help()


def groups_of(command: str) -> Iterator[Group]:
    """The groups of a command: `model` with its parts, then `data`, then others."""
    run = RUNS[command]
    for key, name in (("model", run.module), ("data", run.data), *run.others):
        purpose, options = class_options(name)
        yield from _groups(key, purpose, options)


def _groups(key: str, purpose: str, options: Sequence[Option]) -> Iterator[Group]:
    yield Group(key, purpose, tuple(option for option in options if not option.options))
    for option in options:
        if option.options:
            yield from _groups(f"{key}.{option.name}", option.help, option.options)


def _parser(command: str, groups: Sequence[Group], about: str, epilog: str) -> argparse.ArgumentParser:
    """A parser that is only printed."""
    parser = argparse.ArgumentParser(
        usage=f"lightning {command} --config FILE [--config FILE ...] [--KEY VALUE ...]",
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    for group in groups:
        title = f"{group.key} (--{group.key}.…)" if group.key else "run"
        section = parser.add_argument_group(title, group.purpose)
        for option in group.options:
            default = "required" if option.default is None else f"default: {option.default}"
            text = f"{option.help} ({default})".strip().replace("%", "%%")
            name = f"--{group.key}.{option.name}" if group.key else f"--{option.name}"
            section.add_argument(name, metavar=option.type, help=text, default=argparse.SUPPRESS)
    return parser

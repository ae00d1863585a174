"""`lightning config`: the configurations that come with the package."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from c2c_lightning.commands.config_schema import write_schema
from c2c_lightning.commands.parsing import CommandParser, HelpFormatter
from c2c_lightning.commands.shipped_configs import ShippedConfig, named_configs, shipped_configs
from c2c_lightning.errors import ConfigurationError

ABOUT = """\
Configurations that come with the package.

  lightning config list                  command, name and purpose of each
  lightning config show NAME             print it
  lightning config copy NAME [TARGET]    write it as a file of your own
  lightning config schema [COMMAND]      JSON schema, by which editors complete and check YAML

`lightning fit --config NAME` uses one by its name; a name means another file for `fit` than for `test`."""


def run_config(args: Sequence[str]) -> None:
    """Run the action named by the second word."""
    if list(args[1:2]) in (["-h"], ["--help"]):
        Console().print(f"usage: lightning config {'|'.join(ACTIONS)} [options]\n\n{ABOUT}", markup=False)
        raise SystemExit(0)
    if len(args) < 2 or args[1] not in ACTIONS:
        raise ArgumentError(None, f"name an action: lightning config {'|'.join(ACTIONS)}")
    ACTIONS[args[1]](args[2:])


def list_configs(args: Sequence[str]) -> None:
    """Print a table of all configurations."""
    _parser("list", list_configs.__doc__).options(args)
    table = Table("command", "name", Column("purpose", overflow="fold"), box=SIMPLE_HEAD)
    for column in table.columns[:2]:
        column.no_wrap = True
    configs = sorted(shipped_configs(), key=lambda config: (not config.command, config.command, config.name))
    for config in configs:
        table.add_row(config.command or "(part)", config.path.stem if config.command else config.name, config.purpose)
    # A pipe has no width of its own, and a narrow terminal must not cut names.
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def show_config(args: Sequence[str]) -> None:
    """Print a configuration; of a name that several commands use, all of them."""
    parser = _parser("show", show_config.__doc__)
    parser.add_argument("name", help="as `lightning config list` shows it")
    configs = named_configs(parser.options(args).name)
    texts = [
        f"# {config.name}\n{config.standalone()}" if len(configs) > 1 else config.standalone() for config in configs
    ]
    sys.stdout.write("---\n".join(texts))


def copy_config(args: Sequence[str]) -> None:
    """Write a configuration as a file that refers to no other; of a name that several commands use, all of them."""
    parser = _parser("copy", copy_config.__doc__)
    parser.add_argument("name", help="as `lightning config list` shows it")
    parser.add_argument("target", nargs="?", default=".", help="folder, or a file that ends in .yaml; default here")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    options = parser.options(args)
    targets = _targets(named_configs(options.name), Path(options.target))
    taken = [str(target) for target in targets if target.exists()]
    if taken and not options.force:
        raise ConfigurationError(f"no file is replaced: {', '.join(taken)}. Choose another target, or add `--force`.")
    for target, config in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(config.standalone(), encoding="utf-8")
        use = f"lightning {config.command} --config {target}" if config.command else f"--config {target}"
        Console().print(f"{target}: {use}", markup=False, highlight=False, soft_wrap=True)


def _targets(configs: Sequence[ShippedConfig], target: Path) -> dict[Path, ShippedConfig]:
    """The file that each configuration is written to."""
    if target.suffix not in (".yaml", ".yml"):
        return {target / f"{config.name.replace('/', '_')}.yaml": config for config in configs}
    if len(configs) > 1:
        names = ", ".join(config.name for config in configs)
        raise ConfigurationError(f"the name means several configurations: {names}. Name one of them, or a folder.")
    return {target: configs[0]}


ACTIONS: dict[str, Callable[[Sequence[str]], None]] = {
    "list": list_configs,
    "show": show_config,
    "copy": copy_config,
    "schema": write_schema,
}


def _parser(action: str, about: str | None) -> CommandParser:
    return CommandParser(prog=f"lightning config {action}", description=about, formatter_class=HelpFormatter)

"""`lightning fuser-hub`: fusers between many models from common parts (docs/hub_fuser.md)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from c2c_lightning.commands.parsing import CommandParser, parser_of
from c2c_lightning.commands.run_classes import HUB_RUNS
from c2c_lightning.commands.subcommands import Subcommands, SubcommandTable

logger = logging.getLogger(__name__)

EXAMPLES = """\
Examples:
  lightning fuser-hub fit --config quickstart_hub
  lightning fuser-hub show --hub runs/quickstart_hub/hub
  lightning fuser-hub export --hub runs/quickstart_hub/hub --direction first_to_second --output_dir fuser
  lightning fuser-hub test --hub runs/quickstart_hub/hub --config quickstart_hub_test --output_dir runs/hub_test
Options of one action: `lightning fuser-hub NAME --help`."""


def run_fuser_hub(args: Sequence[str]) -> None:
    """Run the action named by the second word."""
    SubcommandTable("fuser-hub", "an action", ACTIONS, EXAMPLES).run(args)


def fit_hub(args: Sequence[str]) -> None:
    """Train the fusers of several directions jointly; resumes with `--ckpt_path last`."""
    _run("fit", args)


def validate_hub(args: Sequence[str]) -> None:
    """Losses of every direction, from a checkpoint."""
    _run("validate", args)


def show_hub(args: Sequence[str]) -> None:
    """Parameters of the parts, against those of a fuser for each trained direction."""
    hub = _loaded(_parser("show", show_hub.__doc__).options(args).hub)
    parts, directions = hub.fuser.num_parameters(), hub.description.directions
    table = Table("part", "parameters")
    for name, count in parts.items():
        table.add_row(name, f"{count:,}")
    pairs = sum(p.numel() for direction in directions for p in hub.fuser.template(direction).parameters())
    table.add_row("hub", f"{sum(parts.values()):,}")
    table.add_row(f"fusers of its {len(directions)} directions", f"{pairs:,}")
    Console().print(table)


def export_hub(args: Sequence[str]) -> None:
    """Write the fuser of one direction as an ordinary fuser directory, or the hub of a checkpoint as its directory."""
    parser = _parser("export", export_hub.__doc__)
    parser.add_argument("--direction", type=str | None, help="SHARER_to_RECEIVER, by the names of the hub; default all")
    parser.add_argument("--output_dir", type=Path, required=True, help="directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace another fuser or hub in output_dir")
    options = parser.options(args)
    from c2c_lightning.fuser.direction import Direction

    hub = _loaded(options.hub)
    if options.direction is None:
        hub.save(options.output_dir, options.overwrite)
    else:
        hub.export(Direction.parse(options.direction), options.output_dir, options.overwrite)
    logger.info("%s written to %s", "hub" if options.direction is None else "fuser", options.output_dir)


def measure_hub(args: Sequence[str]) -> None:
    """Run `lightning test` for every direction, and write the accuracies by direction and responder."""
    parser = _parser("test", measure_hub.__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help="configuration of `lightning test`; {sharer} and {receiver} in it stand for the models of a direction",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of fusers, reports and directions.json")
    options = parser.options(args)
    from c2c_lightning.commands.hub_evaluation import HubEvaluation

    HubEvaluation(_loaded(options.hub), options.config, options.output_dir).run()


def _run(command: str, args: Sequence[str]) -> None:
    """`fit` or `validate` over the classes of a hub."""
    from c2c_lightning.commands.trainer_cli import C2CLightningCLI, show_trainer_options

    words = ("fuser-hub", command)
    if "--help.trainer" in args:
        return show_trainer_options(parser_of(run_fuser_hub, words))
    C2CLightningCLI(command, [command, *args], HUB_RUNS[" ".join(words)], words)


def _parser(name: str, purpose: str | None) -> CommandParser:
    parser = CommandParser(prog=f"lightning fuser-hub {name}", description=purpose)
    parser.add_argument("--hub", type=Path, required=True, help="directory of a hub, or a checkpoint of its training")
    return parser


def _loaded(directory: Path) -> Any:
    from c2c_lightning.export.hub_directory import load_hub

    return load_hub(directory)


ACTIONS: Subcommands = {
    "fit": fit_hub,
    "validate": validate_hub,
    "show": show_hub,
    "export": export_hub,
    "test": measure_hub,
}

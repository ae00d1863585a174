"""`lightning oracle`: the paper's oracle experiments, as JSON, tables and pictures."""

from collections.abc import Sequence

from c2c_lightning.commands.oracle_enrichment import run_enrichment
from c2c_lightning.commands.oracle_transform import run_transform
from c2c_lightning.commands.subcommands import Subcommands, SubcommandTable

EXAMPLES = """\
Examples:
  lightning oracle enrichment --config quickstart_enrichment
  lightning oracle transform --config quickstart_transform
Options of one experiment: `lightning oracle NAME --help`."""

ORACLES: Subcommands = {"enrichment": run_enrichment, "transform": run_transform}


def run_oracle(args: Sequence[str]) -> None:
    """Run the oracle experiment named by the second word."""
    SubcommandTable("oracle", "an oracle experiment", ORACLES, EXAMPLES).run(args)

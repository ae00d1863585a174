"""`lightning analyze proportion`: accuracy against the share of the prompt that is fused (paper, Fig. 11)."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from c2c_lightning.commands.fuser_analysis import write_analysis
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.commands.sub_runs import run_test
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.curves import share_figure
from c2c_lightning.evaluation.fused_share import share_report
from c2c_lightning.evaluation.report.aggregate import grouped
from c2c_lightning.responders.partial_fusion import Side


def analyze_proportion(args: Sequence[str]) -> None:
    """Accuracy against the share of the prompt that is fused, from the front and from the back (paper, Fig. 11)."""
    parser = CommandParser(prog="lightning analyze proportion", description=analyze_proportion.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument(
        "--test",
        type=list[str],
        required=True,
        help="configurations of `lightning test`: models, questions, generation",
    )
    parser.add_argument("--fuser", type=str | None, help="fuser; default that of the configurations")
    parser.add_argument("--shares", type=list[float], default=[0.25, 0.5, 0.75], help="shares between 0 and 1")
    parser.add_argument(
        "--with_sharer", type=bool, default=True, help="whether the sharer answers too, as the upper line"
    )
    parser.add_argument(
        "--output_dir", type=str, default="runs/proportion", help="folder of answers, numbers and picture"
    )
    options = parser.options(args)
    shares = sorted(set(options.shares) - {0.0, 1.0})
    if any(not 0 < share < 1 for share in shares):
        raise ConfigurationError(f"`shares` must lie in [0, 1], but are {options.shares}.")
    parts = [_factory(share, side) for side in get_args(Side) for share in shares]
    responders = ["receiver", *(["sharer"] if options.with_sharer else []), "c2c", *parts]
    chosen: dict[str, Any] = {"model.responders": responders}
    if options.fuser is not None:
        chosen["model.fuser"] = options.fuser
    folder = Path(options.output_dir)
    by_benchmark = grouped(run_test(options.test, folder, chosen), "benchmark")
    reports = {name: share_report(answers, shares) for name, answers in by_benchmark.items()}
    document = {"version": 1, "benchmarks": {name: asdict(report) for name, report in reports.items()}}
    write_analysis(folder, "proportion", document, lambda: share_figure(reports))
    for name, report in reports.items():
        Console().print(report.table(name))


def _factory(share: float, side: str) -> dict[str, Any]:
    return {
        "class_path": "c2c_lightning.responders.registry.FusedShare",
        "init_args": {"share": share, "side": side},
    }

"""`lightning analyze overlap`: who is right where, from the predictions of an evaluation."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.errors import BenchmarkError, MissingExtraError
from c2c_lightning.evaluation.overlap_report import OverlapReport, overlap_report
from c2c_lightning.evaluation.prediction_log import Prediction, PredictionLog, write_atomically
from c2c_lightning.evaluation.report.aggregate import grouped
from c2c_lightning.evaluation.report.plots import draw_overlap, require_pyplot

logger = logging.getLogger(__name__)


def analyze_overlap(args: Sequence[str]) -> None:
    """Who is right where: Venn counts of right answers, what C2C keeps of the receiver's and gains of the sharer's."""
    parser = CommandParser(prog="lightning analyze overlap", description=analyze_overlap.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument(
        "--predictions", type=str, required=True, help="predictions.jsonl of `lightning test`, or its folder"
    )
    parser.add_argument("--receiver", type=str, default="receiver", help="responder that counts as the receiver")
    parser.add_argument("--sharer", type=str, default="sharer", help="responder that counts as the sharer")
    parser.add_argument("--fused", type=str, default="c2c", help="responder that combines both")
    parser.add_argument("--output_dir", type=str, default="runs/overlap", help="folder of overlap.json and pictures")
    options = parser.options(args)
    by_benchmark = grouped(read_predictions(options.predictions), "benchmark")
    roles = (options.receiver, options.sharer, options.fused)
    reports = {name: overlap_report(predictions, *roles) for name, predictions in by_benchmark.items()}
    _write(reports, Path(options.output_dir))
    console = Console()
    for name, report in reports.items():
        console.print(f"\n{name}: {', '.join(f'{role} = {who}' for role, who in report.names.items())}", markup=False)
        for table in report.tables():
            console.print(table)


def read_predictions(given: str) -> list[Prediction]:
    """The answers of a finished `lightning test`, from predictions.jsonl or its folder.

    Raises:
        BenchmarkError: there is no such file.
    """
    path = Path(given)
    folder = path.parent if path.name == "predictions.jsonl" and not path.is_dir() else path
    if not (folder / "predictions.jsonl").is_file():
        raise BenchmarkError(
            f"{folder} has no predictions.jsonl. Name the output folder of a finished `lightning test`."
        )
    return PredictionLog(folder).read()


def _write(reports: dict[str, OverlapReport], folder: Path) -> None:
    """`overlap.json`, and a Venn diagram for each benchmark where matplotlib is installed."""
    document = {"version": 1, "benchmarks": {name: report.to_json() for name, report in reports.items()}}
    write_atomically(folder / "overlap.json", json.dumps(document, indent=2) + "\n")
    try:
        plt = require_pyplot()
    except MissingExtraError as error:
        logger.info("no pictures: %s", error)
        return
    for name, report in reports.items():
        figure = draw_overlap(plt, {"overlap": report.regions})
        figure.suptitle(name)
        figure.savefig(folder / f"{name}_overlap.png", dpi=120, bbox_inches="tight")
        plt.close(figure)

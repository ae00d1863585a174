"""`lightning analyze length`: response length, and latency against the lengths of prompt and response."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.progress import Progress

from c2c_lightning.commands.analyze_overlap import read_predictions
from c2c_lightning.commands.fuser_analysis import write_analysis
from c2c_lightning.commands.parsing import CommandParser
from c2c_lightning.error_console import ERROR_CONSOLE
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.evaluation.load_models import load_fused
from c2c_lightning.evaluation.report.aggregate import grouped
from c2c_lightning.evaluation.response_length import ResponseLength, length_table, response_lengths
from c2c_lightning.profiling.length_picture import length_figure
from c2c_lightning.profiling.length_sweep import LatencyPoint, LengthSweep, latency_table, plain
from c2c_lightning.profiling.results import environment


def analyze_length(args: Sequence[str]) -> None:
    """Response length of C2C against receiver and sharer, and seconds against prompt and response length."""
    parser = CommandParser(prog="lightning analyze length", description=analyze_length.__doc__)
    parser.add_argument("--config", action="config", help="YAML file with the options below")
    parser.add_argument(
        "--predictions", type=str | None, help="predictions.jsonl of `lightning test`, for response lengths"
    )
    parser.add_argument("--fuser", type=str | None, help="fuser directory, hub id or checkpoint, for latencies")
    parser.add_argument("--sweep", type=LengthSweep, default=LengthSweep(), help="lengths that latencies are timed at")
    parser.add_argument("--device", type=str | None, help="where latencies are timed; default the CPU")
    parser.add_argument("--output_dir", type=str, default="runs/length", help="where numbers and picture go")
    options = parser.options(args)
    if options.predictions is None and options.fuser is None:
        raise ConfigurationError(
            "nothing is measured: give --predictions for response lengths, --fuser for latencies, or both."
        )
    lengths = {} if options.predictions is None else _lengths(options.predictions)
    points = [] if options.fuser is None else _latencies(options)
    document = {
        "version": 1,
        "benchmarks": {name: {who: line.to_json() for who, line in lines.items()} for name, lines in lengths.items()},
        "latency": plain(points),
        "environment": environment(torch.device(options.device or "cpu")),
    }
    write_analysis(Path(options.output_dir), "length", document, lambda: length_figure(lengths, points))
    console = Console()
    for name, lines in lengths.items():
        console.print(length_table(name, lines))
    if points:
        console.print(latency_table(points))


def _lengths(predictions: str) -> dict[str, dict[str, ResponseLength]]:
    """Response lengths by benchmark and responder."""
    found = grouped(read_predictions(predictions), "benchmark")
    return {name: response_lengths(answers) for name, answers in found.items()}


def _latencies(options: Namespace) -> list[LatencyPoint]:
    """Latencies, with a progress bar."""
    sweep: LengthSweep = options.sweep
    model = load_fused(options.fuser, device=options.device)
    with Progress(console=ERROR_CONSOLE, transient=True) as progress:
        task = progress.add_task("Lengths", total=len(sweep.lengths))
        return sweep.run(model, lambda: progress.advance(task))

"""Weak scaling: samples a second of training in several processes over one, with the same rows a process.

    python -m benchmarks.weak_scaling --processes 2 --steps 100 --repeats 3 --output scaling.json

Each run is `lightning fit` as a user starts it, with the embedded pair and one thread a process; data loading, gradient
exchange (gloo) and optimizer are part of it, start and first steps are not. Runs with one process and with several take
turns. Needs as many idle cores as processes. Exit code 1 if the goal is missed.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

QUICKSTART = Path(__file__).parent.parent / "configs" / "fit" / "quickstart.yaml"
COLUMN = "throughput/samples_per_second"


@dataclass(frozen=True)
class Scaling:
    """What was measured.

    Attributes:
        processes: how many took part.
        one: samples a second in one process, of each run.
        several: likewise in all processes together.
    """

    processes: int
    one: tuple[float, ...]
    several: tuple[float, ...]

    @property
    def factor(self) -> float:
        """Samples a second in several processes over one, by medians of the runs."""
        return median(self.several) / median(self.one)


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weak_scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind")
    parser.add_argument("--batch_size", type=int, default=64, help="rows of each process in a step")
    parser.add_argument("--strategy", default="ddp", help="of the Trainer")
    parser.add_argument("--goal", type=float, default=1.8, help="smallest factor that counts as success")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    options = parser.parse_args(args)
    console = Console()
    if (os.cpu_count() or 1) < options.processes:
        console.print(f"{options.processes} processes need as many cores; there are {os.cpu_count()}.")
        return 2
    rates: dict[int, list[float]] = {1: [], options.processes: []}
    for _ in track(range(options.repeats), "runs", console=console):
        for processes, found in rates.items():
            found.append(samples_per_second(processes, options.steps, options.batch_size, options.strategy))
    scaling = Scaling(options.processes, tuple(rates[1]), tuple(rates[options.processes]))
    report(scaling, console)
    if options.output is not None:
        options.output.write_text(json.dumps({**asdict(scaling), "factor": scaling.factor}, indent=1) + "\n")
    return int(scaling.factor < options.goal)


def samples_per_second(processes: int, steps: int, batch_size: int, strategy: str) -> float:
    """One training run: the median over its logged intervals, without the first two.

    Args:
        processes: how many.
        steps: optimizer steps.
        batch_size: rows of each process in a step.
        strategy: of the Trainer, where there are several processes.
    """
    with tempfile.TemporaryDirectory(prefix="weak_scaling.") as folder:
        trainer = {
            "devices": str(processes),
            "strategy": strategy if processes > 1 else "auto",
            "max_steps": str(steps),
            "log_every_n_steps": str(max(1, steps // 10)),
            "limit_val_batches": "0",
            "enable_progress_bar": "false",
            "enable_checkpointing": "false",
            "callbacks": "null",
            "default_root_dir": folder,
            "logger.init_args.save_dir": folder,
        }
        command = [sys.executable, "-m", "c2c_lightning", "fit", "--config", str(QUICKSTART)]
        command += ["--data.batch_size", str(batch_size)]
        command += [part for name, value in trainer.items() for part in (f"--trainer.{name}", value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run in {processes} processes failed:\n{done.stderr[-2000:]}")
        return median(logged(Path(folder) / "metrics.csv")[2:])


def logged(path: Path) -> list[float]:
    """Samples a second in each logged interval of a run."""
    with path.open() as file:
        return [float(row[COLUMN]) for row in csv.DictReader(file) if row.get(COLUMN)]


def report(scaling: Scaling, console: Console) -> None:
    """A table of the runs."""
    table = Table("processes", "samples/s (median)", "runs", "factor")
    for processes, rates in ((1, scaling.one), (scaling.processes, scaling.several)):
        factor = f"{median(rates) / median(scaling.one):.2f}"
        table.add_row(str(processes), f"{median(rates):.1f}", ", ".join(f"{rate:.1f}" for rate in rates), factor)
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())

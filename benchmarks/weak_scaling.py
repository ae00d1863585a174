"""Weak scaling: samples a second of training in several processes over one, with the same rows a process.

    python -m benchmarks.weak_scaling --processes 2 --output scaling.json
    python -m benchmarks.weak_scaling --config configs/fit/quickstart.yaml --batch_size 60 --steps 100

Each run is `lightning fit` as a user starts it, with one thread a process: of the pair of `configs/bench/step.yaml`
with rows of one length, or of a configuration of your own. Data loading, gradient exchange (gloo) and optimizer are
part of it, start and first steps are not. Runs with one process and with several take turns. Needs as many idle cores
as processes. The shorter a step, the more the exchange counts; rows that do not fill the batches of an epoch count as
slow ones (60 divides the embedded pair's 960 for up to 16 processes). Exit code 1 if the goal is missed.
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

import numpy as np
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.fixed_work import small_pair
from c2c_lightning.profiling.model_pair import FIRST_WORD
from c2c_lightning.profiling.workload import Workload

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
    parser.add_argument("--config", type=Path, help="what is trained; default the pair of the fixed work")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind")
    parser.add_argument("--batch_size", type=int, default=4, help="rows of each process in a step")
    parser.add_argument("--strategy", default="ddp", help="of the Trainer")
    parser.add_argument("--goal", type=float, default=1.8, help="smallest factor that counts as success")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    options = parser.parse_args(args)
    console = Console()
    if (os.cpu_count() or 1) < options.processes:
        console.print(f"{options.processes} processes need as many cores; there are {os.cpu_count()}.")
        return 2
    rates: dict[int, list[float]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory(prefix="weak_scaling.") as folder:
        config = options.config or write_run(Path(folder), options.steps * options.batch_size * options.processes)
        for _ in track(range(options.repeats), "runs", console=console):
            for processes, found in rates.items():
                found.append(samples_per_second(config, processes, options))
    scaling = Scaling(options.processes, tuple(rates[1]), tuple(rates[options.processes]))
    report(scaling, console)
    if options.output is not None:
        options.output.write_text(json.dumps({**asdict(scaling), "factor": scaling.factor}, indent=1) + "\n")
    return int(scaling.factor < options.goal)


def write_run(folder: Path, rows: int) -> Path:
    """Models, rows and configuration of a run.

    Args:
        folder: they go there.
        rows: how many rows, of one length.

    Returns:
        The configuration's path.
    """
    pair = small_pair()
    model = pair.build("cpu")
    for name, lm in (("receiver", model.receiver), ("sharer", model.sharers[0])):
        lm.model.save_pretrained(folder / name)
        lm.tokenizer.save_pretrained(folder / name)
    lengths = Workload(rows, prompt_sigma=0.0, response_sigma=0.0).lengths()
    tokens = zip(lengths.prompts[:, 0].tolist(), lengths.responses.tolist(), strict=True)
    with (folder / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(_row(number, *row)) + "\n" for number, row in enumerate(tokens))
    source = {"class_path": "c2c_lightning.data.sources.Messages", "init_args": {"path": str(folder / "rows.jsonl")}}
    config = {
        "seed_everything": 0,
        "model": {
            "receiver": {"path": str(folder / "receiver")},
            "sharers": [{"path": str(folder / "sharer")}],
            "fuser": asdict(pair.fuser),
        },
        "data": {"train": source, "validation_share": 0.0, "cache_dir": str(folder)},
        "trainer": {"accelerator": "cpu", "gradient_clip_val": 1.0},
    }
    (folder / "fit.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "fit.yaml"


def _row(number: int, prompt: int, response: int) -> dict[str, list[dict[str, str]]]:
    """A row of so many tokens; the chat template adds three to a prompt and one to a response."""
    words = np.random.default_rng(number).integers(FIRST_WORD, 32_000, prompt + response).astype(str)
    user, assistant = " ".join(words[: prompt - 3]), " ".join(words[prompt : prompt + response - 1])
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def samples_per_second(config: Path, processes: int, options: argparse.Namespace) -> float:
    """One training run: the median over its logged intervals, without the first two.

    Args:
        config: what is trained.
        processes: how many.
        options: the command line.
    """
    with tempfile.TemporaryDirectory(prefix="weak_scaling.run.") as folder:
        trainer = {
            "devices": str(processes),
            "strategy": options.strategy if processes > 1 else "auto",
            "max_steps": str(options.steps),
            "log_every_n_steps": str(max(1, options.steps // 10)),
            "limit_val_batches": "0",
            "enable_progress_bar": "false",
            "enable_checkpointing": "false",
            "callbacks": "null",
            "default_root_dir": folder,
            "logger": "lightning.pytorch.loggers.CSVLogger",
            "logger.init_args.save_dir": folder,
        }
        command = [sys.executable, "-m", "c2c_lightning", "fit", "--config", str(config)]
        command += ["--data.batch_size", str(options.batch_size)]
        command += [part for name, value in trainer.items() for part in (f"--trainer.{name}", value)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the run in {processes} processes failed:\n{done.stderr[-2000:]}")
        return median(logged(next(Path(folder).rglob("metrics.csv")))[2:])


def logged(path: Path) -> list[float]:
    """Samples a second in each logged interval of a run."""
    with path.open() as file:
        return [float(row[COLUMN]) for row in csv.DictReader(file) if row.get(COLUMN)]


def report(scaling: Scaling, console: Console) -> None:
    """A table of the runs."""
    table = Table("processes", "samples/s (median)", "runs", "factor")
    for processes, rates in ((1, scaling.one), (scaling.processes, scaling.several)):
        factor = f"{median(rates) / median(scaling.one):.2f}"
        table.add_row(str(processes), f"{median(rates):.2f}", ", ".join(f"{rate:.2f}" for rate in rates), factor)
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())

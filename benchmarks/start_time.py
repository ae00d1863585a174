"""Time until the program says a word: help, version, a mistyped command, the help of `fit`, and the import.

    python -m benchmarks.start_time
    python -m benchmarks.start_time --rounds 10 --output start_time.json

Each case is a fresh interpreter with one thread. The fastest round counts, since other programs only ever add time.
The first run after an installation is slower: files are read from the disk and compiled to bytecode. Exit code 1 if a
goal is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

PROGRAM = ["-m", "c2c_lightning"]
IMPORT, TORCH = "import c2c_lightning", "import torch"
IMPORT_ALLOWANCE = 0.3
"""Seconds that importing the package may take beyond importing PyTorch."""


@dataclass(frozen=True)
class Case:
    """One command line.

    Attributes:
        name: how it is called in the table.
        arguments: those of the Python interpreter.
        goal: seconds, if there is a fixed one.
        measure: which time the goal is about.
    """

    name: str
    arguments: list[str]
    goal: float | None = None
    measure: str = "wall"


@dataclass(frozen=True)
class Timing:
    """Seconds of one process: elapsed, and of the CPU (user and system)."""

    wall: float
    cpu: float


CASES = [
    Case("lightning --help", [*PROGRAM, "--help"], 0.5),
    Case("lightning --version", [*PROGRAM, "--version"], 0.5),
    Case("lightning fti (mistyped)", [*PROGRAM, "fti"], 0.5),
    Case("lightning fit --help", [*PROGRAM, "fit", "--help"], 3.0, "cpu"),
    Case(IMPORT, ["-c", IMPORT]),
    Case("from c2c_lightning import C2CModel", ["-c", "from c2c_lightning import C2CModel"]),
    Case(TORCH, ["-c", TORCH]),
    Case("import lightning", ["-c", "import lightning"]),
    Case("the interpreter alone", ["-c", "pass"]),
]


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Returns:
        0 if all goals are met, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes for each case")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(args)
    console = Console(stderr=True)
    best = {case.name: Timing(float("inf"), float("inf")) for case in CASES}
    # The cases take turns, so that a busy minute of the machine does not fall on one of them.
    for _ in track(range(options.rounds), "start time", console=console, transient=True):
        for case in CASES:
            best[case.name] = _faster(best[case.name], run(case))
    rows = [judge(case, best) for case in CASES]
    _show(rows)
    if options.output is not None:
        options.output.write_text(json.dumps({"rounds": options.rounds, "cases": rows}, indent=2) + "\n")
    return 0 if all(row["met"] in (True, None) for row in rows) else 1


def run(case: Case) -> Timing:
    """Seconds of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *case.arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    return Timing(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)


def _faster(one: Timing, other: Timing) -> Timing:
    return Timing(min(one.wall, other.wall), min(one.cpu, other.cpu))


def judge(case: Case, best: dict[str, Timing]) -> dict[str, object]:
    """A case with its times, its goal in seconds and whether it is met; None where there is no goal."""
    goal = best[TORCH].wall + IMPORT_ALLOWANCE if case.name == IMPORT else case.goal
    met = None if goal is None else asdict(best[case.name])[case.measure] <= goal
    return {"name": case.name, **asdict(best[case.name]), "measure": case.measure, "goal": goal, "met": met}


def _show(rows: Sequence[dict[str, object]]) -> None:
    table = Table("command", "wall (s)", "CPU (s)", "goal", "met")
    for row in rows:
        goal = "" if row["goal"] is None else f"{row['measure']} ≤ {row['goal']:.2f} s"
        met = {True: "yes", False: "no", None: ""}[row["met"]]  # type: ignore[index]
        table.add_row(str(row["name"]), f"{row['wall']:.2f}", f"{row['cpu']:.2f}", goal, met)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Kills training runs at random moments, resumes them, and compares them with runs that were not killed.

    python -m benchmarks.kill_resume --kills 5 --output kills.json

Each case is `lightning fit` with the embedded pair. It runs once to its end; then again, killed with SIGKILL several
times and resumed with `--ckpt_path last` each time. A third of the kills come while a checkpoint is written, the others
at any moment from the reading of the data to the last step. Batches, losses, learning rates, gate temperatures, random
numbers, the logger's steps and the final fuser must agree to the last bit. Exit code 1 if anything does not.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.cases import CASES
from benchmarks.killing import BenchContext, Outcome

QUICKSTART = Path(__file__).parent.parent / "configs" / "fit" / "quickstart.yaml"


def main(args: Sequence[str] | None = None) -> int:
    """Kill, resume and compare.

    Args:
        args: command line, default that of the process.

    Returns:
        1 if anything disagrees, else 0.
    """
    options = _options(args)
    cases = [case for case in CASES if all(word in str(case) for word in options.only)]
    console = Console()
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="kill_resume."))
        bar = stack.enter_context(Progress(*columns, console=console))
        task = bar.add_task("kills", total=options.kills * len(cases))
        bench = BenchContext(
            Path(folder), options.config, options.steps, random.Random(options.seed), lambda: bar.advance(task)
        )
        outcomes = []
        for case in cases:
            bar.update(task, description=str(case))
            outcomes.append(bench.try_case(case, options.kills))
            if options.output is not None:
                write(options.output, outcomes, seed=options.seed, steps=options.steps)
    console.print(table(outcomes))
    for outcome in outcomes:
        for difference in outcome.differences[:5]:
            console.print(f"{outcome.case}: {difference}", markup=False)
    return int(any(outcome.differences for outcome in outcomes))


def write(path: Path, outcomes: Sequence[Outcome], **settings: int) -> None:
    """The results so far, as JSON."""
    rows = [{"name": str(outcome.case), **asdict(outcome)} for outcome in outcomes]
    path.write_text(json.dumps({**settings, "cases": rows}, indent=1) + "\n")


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row per case, and their sum."""
    shown = Table("case", "kills", "in checkpoints", "runs", "kills agreed")
    counts = [(o.kills, o.in_checkpoints, o.resumed, o.agreed) for o in outcomes]
    for outcome, row in zip(outcomes, counts, strict=True):
        shown.add_row(str(outcome.case), *map(str, row))
    shown.add_section()
    shown.add_row("all", *(str(sum(column)) for column in zip(*counts, strict=True)))
    return shown


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kill_resume", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=5, help="kills per case")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name has all these words, say: stream")
    parser.add_argument("--config", type=Path, default=QUICKSTART, help="what is trained, as in `lightning fit`")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where runs go and stay; default a temporary folder")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args(args)


if __name__ == "__main__":
    sys.exit(main())

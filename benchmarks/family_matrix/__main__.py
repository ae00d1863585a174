"""Run the family matrix: every language model class of the installed transformers, tiny and random.

    python -m benchmarks.family_matrix                       # all classes; writes the results and docs/models.md
    python -m benchmarks.family_matrix --classes Gemma4ForCausalLM MptForCausalLM
    make models-newest                                       # the same with the newest transformers

Each class is built with a few thousand weights and tried as receiver in each fusion mode and as sharer: with closed
gates its answers are the bare receiver's token for token, a prompt alone is answered as in a padded batch, teacher
forcing agrees with generation, and gradients reach the fuser alone. Exit code 1 if an accepted class fails a check.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from rich.console import Console
from rich.progress import track

from benchmarks.family_matrix.classes import LMClass, language_model_classes
from benchmarks.family_matrix.matrix import Row, row_of
from benchmarks.family_matrix.table import PAGE, RESULTS, read_results, update_page, write_results

PINNED = next(
    line.split("==")[1].strip()
    for line in (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    if line.startswith("transformers==")
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the matrix.

    Returns:
        0 if no accepted class fails a check, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", help="only these classes; nothing is written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to update")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are replaced")
    options = parser.parse_args(args)
    classes = [lm for lm in language_model_classes() if not options.classes or lm.name in options.classes]
    rows = run(classes, options.jobs)
    for row in rows:
        if options.classes or row.fails:
            print(f"{row.title}: {' '.join(row.cells)} {row.reason}")
    if not options.classes:
        _write(rows, options.results, options.page)
    return int(any(row.fails for row in rows))


def run(classes: Sequence[LMClass], jobs: int = 1) -> list[Row]:
    """The rows of some classes."""
    console = Console(stderr=True)
    if jobs == 1:
        _quiet()
        return [row_of(lm) for lm in track(classes, "family matrix", console=console, transient=True)]
    with ProcessPoolExecutor(jobs, get_context("spawn"), _quiet) as pool:
        rows = pool.map(row_of, classes)
        return list(track(rows, "family matrix", len(classes), console=console, transient=True))


def _quiet() -> None:
    """One thread a process, no warnings about random models."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()


def _write(rows: Sequence[Row], results: Path, page: Path) -> None:
    """Record the rows of this version beside those of the pinned one, or of the newest one."""
    version = transformers.__version__
    recorded = read_results(results)
    other = {known: old for known, old in recorded.items() if (known == PINNED) != (version == PINNED)}
    merged = {**other, version: list(rows)}
    ordered = dict(sorted(merged.items(), key=lambda item: item[0] != PINNED))
    write_results(ordered, results)
    update_page(ordered, page)


if __name__ == "__main__":
    sys.exit(main())

"""Checks c2c_lightning on a GPU and measures it at the paper's sizes, in at most nine minutes.

    python -m benchmarks.gpu_day --device cuda --out DIR

Needs python, torch, lightning, transformers and a checkout; no network, no hub, no installation. Each part runs in a
process of its own with a time limit. DIR then holds `gpu_day.json` (everything), `gpu_day.md` (tables) and
`failed.txt` (failed checks, one a line). The exit code is 1 if a check failed. `--tiny --device cpu` runs every part
with tiny models, as the tests do.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Journal
from benchmarks.gpu_day.parts import PARTS, run_parts
from benchmarks.gpu_day.report import write_report


def main(args: Sequence[str] | None = None) -> int:
    """Run the day, or one part of it in this process.

    Args:
        args: command line, default that of the process.

    Returns:
        Exit code: 1 if a check failed.
    """
    options = _options(args)
    day = Day(options.device, options.tiny, options.out, options.models)
    day.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, day)
        return 0
    entries = run_parts(day, options.parts or list(PARTS), options.seconds)
    return write_report(day, entries)


def run_part(name: str, day: Day) -> None:
    """Run one part in this process and write its entries to `part_NAME.json`."""
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # other ranks of a distributed run write nothing
    journal = Journal(name, day.part_file(name) if is_first else None)
    try:
        module = importlib.import_module(f"benchmarks.gpu_day.{name}")
    except ImportError as error:
        journal.check("imports", partial(_missing, error))
        return
    module.run(day, journal)


def _missing(error: ImportError) -> None:
    raise ImportError(f"This part needs the package {error.name!r}: {error}") from error


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models instead of the paper's sizes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=530.0, help="time limit of all parts together")
    parser.add_argument("--models", type=Path, help="folder with real models, for the private-text task")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args(args)


if __name__ == "__main__":
    sys.exit(main())

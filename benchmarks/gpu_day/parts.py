"""The parts of the run, each in a process of its own with a time limit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.journal import Entry, read_entries

ROOT = Path(__file__).parents[2]

PARTS: dict[str, float] = {
    "environment": 40,
    "correctness": 120,
    "lightning_runs": 90,
    "processes": 60,
    "inference": 100,
    "training_step": 120,
    "released": 90,
    "compiled": 120,
    "quickstart": 70,
    "real_models": 240,
}
"""Time limit of each part in seconds, in the order of their value."""

SHORTEST = 5.0
"""Parts with less time than this, in seconds, are not started."""

VARIABLES = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "offline"}


def run_parts(day: Day, names: Sequence[str], seconds: float) -> list[Entry]:
    """Run some parts one after the other.

    Args:
        day: what is run.
        names: of the parts.
        seconds: time limit of all parts together; later parts are cut short or skipped.
    """
    entries, end = list[Entry](), time.monotonic() + seconds
    for name in names:
        limit = min(PARTS[name], end - time.monotonic())
        if limit < SHORTEST:
            entries.append(Entry(name, "time limit", "skipped", message="The time of the whole run was used up."))
            continue
        if any(entry.is_failure and entry.name == "device" for entry in entries):
            entries.append(Entry(name, "device", "skipped", message="The device cannot be used; see `environment`."))
            continue
        found = _run_part(day, name, limit)
        print("\n".join(map(str, found)), flush=True)
        entries.extend(found)
    return entries


def _run_part(day: Day, name: str, limit: float) -> list[Entry]:
    """The entries of one part; where its process fails, one more that says so."""
    result, begin = day.part_file(name), time.monotonic()
    result.unlink(missing_ok=True)
    problem = _run_process([*day.arguments, "--part", name], day.out / f"part_{name}.log", limit)
    entries = read_entries(result)
    if problem:
        tail = (day.out / f"part_{name}.log").read_text(encoding="utf-8", errors="replace")[-1500:]
        entries.append(Entry(name, "process", "error", message=f"{problem}\n{tail}"))
    entries.append(Entry(name, "whole part", "passed", time.monotonic() - begin))
    for path in (result, day.out / f"part_{name}.log"):
        path.unlink(missing_ok=True)
    return entries


def _run_process(arguments: Sequence[str], log: Path, limit: float) -> str | None:
    """Run this module with some arguments; returns the reason if it did not end well."""
    variables = {**os.environ, **VARIABLES, "PYTHONPATH": os.pathsep.join(_search_path())}
    command = [sys.executable, "-m", "benchmarks.gpu_day", *arguments]
    with (
        log.open("wb") as output,
        # A session of its own: a distributed part has child processes, which must end with it.
        subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"The time limit of {limit:.0f} s was reached."
    return f"The process ended with exit code {code}." if code else None


def _search_path() -> list[str]:
    given = os.environ.get("PYTHONPATH", "")
    return [str(ROOT), *filter(None, given.split(os.pathsep))]

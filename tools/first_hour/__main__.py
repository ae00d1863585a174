"""Plays a newcomer's first hour from a built wheel in an empty folder, and prints a transcript with wall times.

    python -m tools.first_hour                                   the whole hour
    python -m tools.first_hour --transcript docs/first_hour.md   also as a page
    python -m tools.first_hour --quickstart --max_steps 5        the quickstart too, short trainings: for CI

The environment is fresh but for the packages that this one has: their installation is not part of the time. Exit code 1
if a command fails or does not leave its result.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.first_hour.environment import build_wheel, fresh_environment, variables
from tools.first_hour.steps import TASK, Step, own_pair, quickstart, write_inputs
from tools.first_hour.transcript import Played, page


def main(args: Sequence[str] | None = None) -> int:
    """Play all steps.

    Returns:
        0 if every command succeeded, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, help="optimizer steps of the trainings; default as configured")
    parser.add_argument("--transcript", type=Path, help="Markdown file to write")
    parser.add_argument("--quickstart", action="store_true", help="play the quickstart first")
    options = parser.parse_args(args)
    steps = [*(quickstart(options.max_steps) if options.quickstart else []), *own_pair(options.max_steps)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        played = [*_install(folder), *_play_all(folder, steps)]
        configuration = (folder / "work" / "mine.yaml").read_text() if played[-1].is_success else ""
    if not played[-1].is_success:
        return 1
    if options.transcript is not None:
        load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        cores = f"one core of {platform.machine()} without a GPU (load average {load})"
        options.transcript.write_text(page(played, cores, configuration, TASK), encoding="utf-8")
    return 0


def _install(folder: Path) -> list[Played]:
    start = time.perf_counter()
    wheel = build_wheel(folder / "wheel")
    fresh_environment(folder / "environment", wheel)
    step = Step("Install", f"pip install {wheel.name}")
    return [_report(Played(step, "", time.perf_counter() - start, is_success=True))]


def _play_all(folder: Path, steps: Sequence[Step]) -> list[Played]:
    """Play steps until one fails."""
    work, played = folder / "work", []
    work.mkdir()
    write_inputs(work)
    environment = variables(folder / "environment" / "bin")
    environment["HF_HOME"] = str(folder / "cache")
    for step in steps:
        played.append(_report(_play(step, work, environment)))
        if not played[-1].is_success:
            break
    return played


def _play(step: Step, work: Path, environment: dict[str, str]) -> Played:
    start = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", f"{step.command} 2>&1"],
        cwd=work,
        env=environment,
        input=step.keyboard,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    left = step.result is None or (work / step.result).exists()
    output = done.stdout.replace(str(work), ".").replace(str(work.parent), "…").replace(platform.platform(), "Linux")
    return Played(step, output, seconds, done.returncode == 0 and left)


def _report(played: Played) -> Played:
    state = "" if played.is_success else "   FAILED"
    sys.stdout.write(f"{played.seconds:7.1f} s  $ {played.step.command}{state}\n")
    if not played.is_success:
        sys.stdout.write(played.output)
    sys.stdout.flush()
    return played


if __name__ == "__main__":
    sys.exit(main())

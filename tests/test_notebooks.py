"""Every notebook runs from top to bottom and is kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each
def test_outputs_are_stripped(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@each
def test_runs(path: Path, tmp_path: Path) -> None:
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(nbformat.read(path, as_version=4), timeout=600, kernel_name="python3", resources=resources).execute()

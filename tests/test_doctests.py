"""The examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "c2c_lightning"
# A training run, in `tests/training/test_example.py`; a trained fuser, as in the examples of `tests/test_docs.py`.
ELSEWHERE = {"c2c_lightning.training.module", "c2c_lightning.model.c2c"}


def modules_with_examples() -> list[str]:
    files = [path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    parts = (path.relative_to(PACKAGE.parent).with_suffix("").parts for path in files)
    return sorted({".".join(part for part in names if part != "__init__") for names in parts} - ELSEWHERE)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed

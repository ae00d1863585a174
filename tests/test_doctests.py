"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import pytest

from c2c_lightning import alignment, data, embedded

MODULES = [
    embedded.__name__,
    *(module.name for module in pkgutil.walk_packages(alignment.__path__, f"{alignment.__name__}.")),
    *(f"{data.__name__}.{name}" for name in ("messages", "prompt_template", "encode", "encode_sharers")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0

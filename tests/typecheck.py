"""The run-time type checker of the tests, named in `pyproject.toml`."""

from collections.abc import Callable
from typing import Any

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype, but methods that return `Self` stay as they are: it can check those only where it sees their class."""
    try:
        return beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function

"""The run-time type checker of the tests, named in `pyproject.toml`."""

import sys
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype, but methods that return `Self` stay as they are: it can check those only where it sees their class.

    A stack of layers is checked to be a list; looking into one that comes from another process would wait for it.
    """
    # Not imported: that module is checked while it is imported.
    stack = getattr(sys.modules.get("c2c_lightning.kv.layer"), "LayerStack", None)
    overrides = FrozenDict({} if stack is None else {stack: list})
    try:
        return beartype(conf=BeartypeConf(hint_overrides=overrides))(function)
    except BeartypeDecorHintPep673Exception:
        return function

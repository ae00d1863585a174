"""Runs a model with another attention function from the registries of transformers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import nn

Running = TypeVar("Running")


@contextmanager
def replaced_attention(
    model: nn.Module, name: str, running: ContextVar[Running], state: Callable[[str], Running]
) -> Iterator[None]:
    """Within it, the layers of `model` call the attention function `name`. No other thread may run the model.

    Args:
        model: the model.
        name: of the attention function that replaces the model's own.
        running: set for that time, for the function to read.
        state: gives the value of `running` from the name of the model's own attention function.
    """
    config: Any = model.config
    config = config.get_text_config()
    base = config._attn_implementation
    token = running.set(state(base))
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = base
        running.reset(token)

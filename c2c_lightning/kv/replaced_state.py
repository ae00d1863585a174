"""A recurrent state that models may overwrite in a pass with gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ReplacedState(Tensor):
    """A state whose in-place update is handed over instead, since autograd may need the old value.

    Models' code for single tokens ends in `state.copy_(new_state)`, also for a part of the state (`state[:, head]`).

    Attributes:
        replace: takes the index of a part, None for the whole, and its new value.
    """

    # As in parameters: the results of operations are plain tensors.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    replace: Callable[[Any, Tensor], None]

    @classmethod
    def of(cls, state: Tensor, replace: Callable[[Any, Tensor], None]) -> Tensor:
        """The same state, with a function that takes its successors."""
        own = state.as_subclass(cls)
        own.replace = replace
        return own

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Tensor:
        """Hand over the new state."""
        self.replace(None, src)
        return self

    def __getitem__(self, index: Any) -> Tensor:
        """A part of the state, whose update is handed over too."""
        return ReplacedState.of(super().__getitem__(index), lambda _, part: self.replace(index, part))

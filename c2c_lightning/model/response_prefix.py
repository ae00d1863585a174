"""The cache that a teacher-forced response pass attends to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.kv.cache import JoinEntries, NewEntries, edited_prefix_cache, prefix_cache
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.kv.states import ModelStates


@dataclass(frozen=True)
class ResponsePrefix:
    """Entries of the tokens before a response pass; they may carry gradients.

    Attributes:
        entries: the receiver's cache.
        edit_rows: for fusion modes that fuse within the pass: given the indices of the batch rows that run, the
            function that replaces the new entries of a layer.
        states: a hybrid's states after the entries.
    """

    entries: LayerStack
    edit_rows: Callable[[Int[Tensor, " rows"]], NewEntries] | None = None
    states: ModelStates | None = None

    @property
    def num_tokens(self) -> int:
        """Length in tokens, padding included."""
        return self.entries[0].num_tokens

    def rows(self, rows: Int[Tensor, " rows"]) -> "ResponsePrefix":
        """The prefix of some batch rows, in any order and number: several responses to one prompt."""
        edit = None if self.edit_rows is None else partial(_edit_of_rows, self.edit_rows, rows)
        states = None if self.states is None else self.states.rows(rows)
        return ResponsePrefix([layer.rows(rows) for layer in self.entries], edit, states)

    @property
    def edit(self) -> NewEntries | None:
        """The function that replaces the new entries of a layer, for all rows; None if they stay as they are."""
        keys = self.entries[0].keys
        return None if self.edit_rows is None else self.edit_rows(torch.arange(len(keys), device=keys.device))

    def cache(self, edit: NewEntries | None, join: JoinEntries | None = None) -> Cache:
        """A cache that is read and never grows.

        Args:
            edit: replaces the new entries of a layer.
            join: how new entries follow the prefix; default concatenation.
        """
        if edit is None:
            return prefix_cache(self.entries, join, self.states)
        return edited_prefix_cache(self.entries, edit, join, self.states)


def _edit_of_rows(edit_rows: Callable[[Tensor], NewEntries], chosen: Tensor, rows: Tensor) -> NewEntries:
    return edit_rows(chosen[rows])

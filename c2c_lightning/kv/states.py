"""States of recurrent and convolution layers: the part of a hybrid model's cache that has no token axis.

Axes: B batch, C channels, K convolution kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from c2c_lightning.kv.layout import CacheLayout


@dataclass(frozen=True)
class LayerState:
    """The states of one layer after some tokens; None for a state that the layer does not have.

    Attributes:
        conv: the last inputs of each convolution, (B, C, K).
        recurrent: each recurrent state, (B, ...).
    """

    conv: tuple[Tensor | None, ...]
    recurrent: tuple[Tensor | None, ...]

    def map(self, change: Callable[[Tensor], Tensor]) -> "LayerState":
        """The result of a function of each state."""
        conv, recurrent = (
            tuple(None if state is None else change(state) for state in states)
            for states in (self.conv, self.recurrent)
        )
        return LayerState(conv, recurrent)

    def where(self, rows: Bool[Tensor, " batch"], other: "LayerState | None") -> "LayerState":
        """These states in the rows for which `rows` holds, those of `other` elsewhere; None is the initial state."""

        def choose(new: Tensor | None, old: Tensor | None) -> Tensor | None:
            if new is None:
                return None
            mask = rows.to(new.device).view(-1, *[1] * (new.dim() - 1))
            # The state before the first token is zero in every architecture.
            return torch.where(mask, new, torch.zeros_like(new) if old is None else old.to(new))

        none = LayerState((None,) * len(self.conv), (None,) * len(self.recurrent))
        old = none if other is None else other
        conv, recurrent = zip(self.conv, old.conv, strict=True), zip(self.recurrent, old.recurrent, strict=True)
        return LayerState(tuple(choose(*pair) for pair in conv), tuple(choose(*pair) for pair in recurrent))


@dataclass(frozen=True)
class ModelStates:
    """The states of a hybrid model after some tokens.

    Attributes:
        layout: the layers of its cache.
        layers: the state of a layer, by its number in the cache; none before the first token.
    """

    layout: CacheLayout
    layers: Mapping[int, LayerState]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The result of a function of each state."""
        return type(self)(self.layout, {n: layer.map(change) for n, layer in self.layers.items()})

    def rows(self, index: Int[Tensor, " rows"]) -> Self:
        """The states of some rows of the batch."""
        return self.map(lambda state: state.index_select(0, index.to(state.device)))

    def where(self, rows: Bool[Tensor, " batch"], other: Self) -> Self:
        """These states in the rows for which `rows` holds, those of `other` elsewhere."""
        layers = {n: layer.where(rows, other.layers.get(n)) for n, layer in self.layers.items()}
        return type(self)(self.layout, layers)


@dataclass(frozen=True)
class StateCheckpoint:
    """The states after the first `num_tokens` columns, padding included, from which a prefill can be continued."""

    num_tokens: int
    states: ModelStates


def join_states(rows: Sequence[ModelStates]) -> ModelStates:
    """The states of batches of one row as one batch; a row before its first token has zeros."""
    numbers = sorted({n for row in rows for n in row.layers})
    layers = {n: _joined([row.layers.get(n) for row in rows]) for n in numbers}
    return ModelStates(rows[0].layout, layers)


def _joined(rows: Sequence[LayerState | None]) -> LayerState:
    known = next(row for row in rows if row is not None)
    whole = [known.map(torch.zeros_like) if row is None else row for row in rows]

    def join(states: tuple[Tensor | None, ...]) -> Tensor | None:
        tensors = [state for state in states if state is not None]
        return torch.cat(tensors) if tensors else None

    conv = zip(*(row.conv for row in whole), strict=True)
    recurrent = zip(*(row.recurrent for row in whole), strict=True)
    return LayerState(tuple(map(join, conv)), tuple(map(join, recurrent)))

"""Cache layers of recurrent and convolution layers; all of them are as functional as the model's own code allows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from c2c_lightning.errors import GenerationError
from c2c_lightning.kv.replaced_state import ReplacedState
from c2c_lightning.kv.states import LayerState, ModelStates

CacheLayer = Any
"""A layer of a transformers cache: it keeps entries, states, both or neither, and there is no common base class."""

# Of layers that keep nothing; before 5.21 transformers has none, and puts an unused layer there.
EmptyLayer: type = getattr(cache_utils, "DummyLayer", DynamicLayer)


class StateLayer(LinearAttentionLayer):
    """Keeps the newest state of one layer.

    An update replaces the state, where transformers' own layer overwrites it, so that gradients pass. Code for single
    tokens overwrites the recurrent state that it is given: a copy, see `ReplacedState`.
    """

    def __init__(self, state: LayerState | None, num_states: int) -> None:
        """Begin with a state, or before the first token."""
        super().__init__(number_of_states=num_states)
        # Layers that record the past are given all inputs of a convolution: its code for single tokens has no gradient.
        self.record_past = torch.is_grad_enabled()
        if state is not None:
            self._set(state.map(torch.clone))
            if torch.is_grad_enabled():
                self.recurrent_states = {
                    n: None if own is None else ReplacedState.of(own, partial(self._replace, n))
                    for n, own in self.recurrent_states.items()
                }

    @property
    def state(self) -> LayerState:
        """The newest state."""
        return LayerState(tuple(self.conv_states.values()), tuple(self.recurrent_states.values()))

    def _replace(self, state_idx: int, index: Any, new: Tensor) -> None:
        """Keep a new recurrent state, or a new part of it."""
        if index is not None:
            whole = self.recurrent_states[state_idx]
            assert whole is not None
            part, new = new, whole.clone()
            new[index] = part
        self.update_recurrent_state(new, state_idx)

    def _set(self, state: LayerState) -> None:
        self.conv_states = dict(enumerate(state.conv))
        self.recurrent_states = dict(enumerate(state.recurrent))
        for n in range(self.number_of_states):
            self.has_previous_state[n] = state.conv[n] is not None or state.recurrent[n] is not None

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: object
    ) -> Tensor:
        """Previous and new inputs of a convolution, (batch, channels, previous + new); the last ones are kept."""
        inputs = self._inputs(conv_states, state_idx, conv_kernel_size)
        # A copy, so that the inputs of a whole prompt are not kept alive.
        self.conv_states[state_idx] = inputs[..., -(conv_kernel_size or conv_states.shape[-1]) :].clone()
        self.has_previous_state[state_idx] = True
        return inputs

    def _inputs(self, new: Tensor, state_idx: int, kernel_size: int | None) -> Tensor:
        before = self.conv_states[state_idx]
        if before is not None:
            return torch.cat([before, new], -1)
        missing = (kernel_size or 0) - new.shape[-1]
        return F.pad(new, (missing, 0)) if missing > 0 else new

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: object) -> Tensor:
        """The new state, which is kept."""
        self.recurrent_states[state_idx] = recurrent_states
        self.has_previous_state[state_idx] = True
        return recurrent_states

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for beams and several answers."""
        self._map(lambda state: state.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows of the batch."""
        self._map(lambda state: state[indices])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams."""
        self._map(lambda state: state.index_select(0, beam_idx.to(state.device)))

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        self._set(self.state.map(change))

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: the state before some tokens cannot be recovered from the state after them.

        Raises:
            GenerationError: tokens are to be removed.
        """
        if tokens_to_remove:
            raise GenerationError(
                "Tokens cannot be removed from the cache of a model with recurrent or convolution layers: their states "
                "cannot be rolled back. Generate without an assistant and without prompt lookup."
            )


class _Copies(dict[int, Tensor | None]):
    """Gives copies of its tensors: kernels for single tokens overwrite the state that they read."""

    def __getitem__(self, key: int) -> Tensor | None:
        state = super().__getitem__(key)
        return None if state is None else state.clone()


class FixedStateLayer(StateLayer):
    """A state that a pass begins with and never changes: the pass may run any number of times."""

    def __init__(self, state: LayerState | None, num_states: int) -> None:
        super().__init__(None, num_states)
        self.record_past = True
        if state is not None:
            self._set(state)

    def _set(self, state: LayerState) -> None:
        super()._set(state)
        self.recurrent_states = _Copies(enumerate(state.recurrent))

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: object
    ) -> Tensor:
        """As `StateLayer.update_conv_state`; nothing is kept."""
        return self._inputs(conv_states, state_idx, conv_kernel_size)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: object) -> Tensor:
        """The new state, which is not kept."""
        return recurrent_states


class AttentionAndStateLayer(LinearAttentionAndFullAttentionLayer):
    """A layer with entries and a state (Falcon-H1, Zamba), made of a layer of each kind.

    transformers tells the kinds of layers apart by their base classes and reads their attributes: those of the two
    parts are repeated here.
    """

    def __init__(self, attention: DynamicLayer, states: StateLayer) -> None:
        super().__init__(number_of_states=states.number_of_states)
        self.attention, self.states = attention, states
        self._repeat_attributes()

    def _repeat_attributes(self) -> None:
        attention, states = self.attention, self.states
        self.keys, self.values, self.is_initialized = attention.keys, attention.values, attention.is_initialized
        self.conv_states, self.recurrent_states = states.conv_states, states.recurrent_states
        self.has_previous_state, self.record_past = states.has_previous_state, states.record_past

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """As the attention layer."""
        entries = self.attention.update(key_states, value_states, *args, **kwargs)
        self._repeat_attributes()
        return entries

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: object
    ) -> Tensor:
        """As the state layer."""
        return self.states.update_conv_state(conv_states, state_idx, conv_kernel_size, **kwargs)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: object) -> Tensor:
        """As the state layer."""
        return self.states.update_recurrent_state(recurrent_states, state_idx, **kwargs)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row in both parts."""
        self.attention.batch_repeat_interleave(repeats)
        self.states.batch_repeat_interleave(repeats)
        self._repeat_attributes()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows in both parts."""
        self.attention.batch_select_indices(indices)
        self.states.batch_select_indices(indices)
        self._repeat_attributes()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams in both parts."""
        self.attention.reorder_cache(beam_idx)  # type: ignore[arg-type]
        self.states.reorder_cache(beam_idx)
        self._repeat_attributes()

    def crop(self, tokens_to_remove: int) -> None:
        """As the state layer: refused."""
        self.states.crop(tokens_to_remove)


def cache_layers(
    attention: Sequence[DynamicLayer], states: ModelStates | None, state_layer: type[StateLayer]
) -> list[CacheLayer]:
    """The layers of a cache.

    Args:
        attention: the layers with entries, in order; later layers of the model are left out.
        states: the states that the pass begins with; None for a model whose layers all keep entries.
        state_layer: class of the layers with states.
    """
    if states is None:
        return list(attention)
    layers, rest = [], iter(attention)
    for n, kind in enumerate(states.layout.layers):
        entries = next(rest) if kind.has_entries else None
        own = state_layer(states.layers.get(n), kind.num_states) if kind.num_states else None
        layers.append(_joined(entries, own))
    return layers


def _joined(attention: DynamicLayer | None, states: StateLayer | None) -> CacheLayer:
    if attention is None:
        return EmptyLayer() if states is None else states
    return attention if states is None else AttentionAndStateLayer(attention, states)


def attention_layers(cache: Cache) -> list[DynamicLayer]:
    """The layers of a cache that keep entries."""
    parts = [layer.attention if isinstance(layer, AttentionAndStateLayer) else layer for layer in cache.layers]
    return [part for part in parts if isinstance(part, DynamicLayer)]


def state_layers(cache: Cache) -> dict[int, StateLayer]:
    """The layers of a cache that keep states, by their numbers."""
    parts = [layer.states if isinstance(layer, AttentionAndStateLayer) else layer for layer in cache.layers]
    return {n: part for n, part in enumerate(parts) if isinstance(part, StateLayer)}


def states_in(cache: Cache) -> dict[int, LayerState]:
    """The states in a cache, by the numbers of their layers; without layers that have none yet."""
    return {n: layer.state for n, layer in state_layers(cache).items() if any(layer.has_previous_state.values())}

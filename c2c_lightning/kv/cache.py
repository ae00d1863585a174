"""The only code that knows how transformers keeps keys and values."""

from collections.abc import Callable, Sequence
from inspect import signature

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer

from c2c_lightning.kv.layer import HybridStack, LayerKV, LayerStack, states_of
from c2c_lightning.kv.state_layers import (
    CacheLayer,
    FixedStateLayer,
    StateLayer,
    attention_layers,
    cache_layers,
    state_layers,
    states_in,
)
from c2c_lightning.kv.states import ModelStates

_ARGUMENTS = signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE_ARGUMENT = "cache" if "cache" in _ARGUMENTS else "past_key_values"
"""The cache's argument of transformers' `forward`: `cache` from version 5.24 on, `past_key_values` before."""

JoinEntries = Callable[[Tensor, Tensor], Tensor]
"""Joins a prefix and new entries, (batch, kv_heads, tokens, head_dim) each, along the tokens."""


class PrefixLayer(DynamicLayer):
    """A fixed prefix that attention reads and never changes.

    `update` returns prefix and new entries together and keeps neither: the prefix may carry gradients, can be read
    any number of times (activation checkpointing replays it), and the response's entries are not kept alive.
    """

    def __init__(self, prefix: LayerKV | None, join: JoinEntries | None = None) -> None:
        """Hold a prefix, (batch, kv_heads, prefix, head_dim); `join` replaces concatenation for ragged batches."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.join = join
        # An empty prefix stays uninitialised: transformers reads the length of a layer from its keys.
        if prefix is not None and prefix.num_tokens:
            self.keys, self.values = prefix.keys, prefix.values
            self.dtype, self.device, self.is_initialized = prefix.keys.dtype, prefix.keys.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Prefix and new entries, (batch, kv_heads, prefix + new, head_dim) each."""
        if self.keys is None or self.values is None:
            return key_states, value_states
        return self._behind(self.keys, key_states), self._behind(self.values, value_states)

    def _behind(self, prefix: Tensor, new: Tensor) -> Tensor:
        return torch.cat([prefix, new], 2) if self.join is None else self.join(prefix, new)


def states_after(cache: Cache, before: ModelStates, is_real: Tensor | None) -> ModelStates:
    """The states that a pass has left in a cache.

    Args:
        cache: the cache.
        before: the states before the pass.
        is_real: (batch,), for a pass over one token: 1 where it is no padding. Models mask padding in longer passes
            only, so that the state of a padded row has to be put back.
    """
    after = ModelStates(before.layout, states_in(cache))
    return after if is_real is None else after.where(is_real.bool(), before)


NewEntries = Callable[[int, LayerKV], LayerKV]
"""Given a layer's number and its new entries, the entries that take their place."""


class EditedPrefixLayer(PrefixLayer):
    """A prefix layer whose new entries are edited before attention reads them."""

    def __init__(self, prefix: LayerKV, number: int, edit: NewEntries, join: JoinEntries | None = None) -> None:
        super().__init__(prefix, join)
        self.number, self.edit = number, edit

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """As `PrefixLayer.update`, with the edited entries."""
        new = self.edit(self.number, LayerKV(key_states, value_states))
        return super().update(new.keys, new.values)


class EditedLayer(DynamicLayer):
    """A growing layer whose new entries are edited before they are kept and read."""

    def __init__(self, entries: LayerKV, number: int, edit: NewEntries) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number, self.edit = number, edit
        if entries.num_tokens:
            super().update(entries.keys, entries.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """As `DynamicLayer.update`, with the edited entries."""
        new = self.edit(self.number, LayerKV(key_states, value_states))
        return super().update(new.keys, new.values)


def edited_prefix_cache(
    kv: LayerStack, edit: NewEntries, join: JoinEntries | None = None, states: ModelStates | None = None
) -> Cache:
    """`prefix_cache` with edited new entries."""
    layers = [EditedPrefixLayer(layer, n, edit, join) for n, layer in enumerate(kv)]
    return Cache(layers=list(cache_layers(layers, states, FixedStateLayer)))


def prefix_cache(kv: LayerStack, join: JoinEntries | None = None, states: ModelStates | None = None) -> Cache:
    """A cache that is read and never grows: for training passes over a fused prefix.

    Args:
        kv: the prefix.
        join: replaces concatenation for ragged batches.
        states: a hybrid's states after the prefix.
    """
    layers = [PrefixLayer(layer, join) for layer in kv]
    return Cache(layers=list(cache_layers(layers, states, FixedStateLayer)))


class HybridCache(DynamicCache):
    """A growing cache of attention layers and state layers."""

    def __init__(self, layers: Sequence[DynamicLayer], states: ModelStates) -> None:
        """Begin with filled attention layers, and with the states after their tokens."""
        self.layout = states.layout
        Cache.__init__(self, layers=list(cache_layers(layers, states, StateLayer)))

    @property
    def states(self) -> ModelStates:
        """The states after its last token."""
        return ModelStates(self.layout, states_in(self))


def dynamic_cache(kv: LayerStack, states: ModelStates | None = None) -> DynamicCache:
    """A cache that `generate` can grow, filled with the given entries, and with a hybrid's states after them."""
    states = states or states_of(kv)
    is_empty = kv[0].num_tokens == 0  # an empty tensor would keep its batch when rows are repeated for beams
    if states is not None:
        return HybridCache([_grown(None if is_empty else layer) for layer in kv], states)
    return DynamicCache() if is_empty else DynamicCache(ddp_cache_data=[(layer.keys, layer.values) for layer in kv])


def _grown(entries: LayerKV | None) -> DynamicLayer:
    layer = DynamicLayer()
    if entries is not None:
        layer.update(entries.keys, entries.values)
    return layer


def edited_cache_layers(kv: LayerStack, edit: NewEntries, states: ModelStates | None) -> list[CacheLayer]:
    """The layers of a growing cache whose new entries are edited; a hybrid's states are the pass's own."""
    return cache_layers([EditedLayer(layer, n, edit) for n, layer in enumerate(kv)], states, StateLayer)


def cache_entries(cache: Cache) -> LayerStack:
    """The entries that lie in a cache, layer by layer; a hybrid's with its states."""
    entries = []
    for layer in attention_layers(cache):
        assert layer.keys is not None
        assert layer.values is not None
        entries.append(LayerKV(layer.keys, layer.values))
    return HybridStack(entries, cache.states) if isinstance(cache, HybridCache) else entries


def is_replayable(cache: object) -> bool:
    """Whether a pass over a cache may run twice with the same result: it reads the cache and leaves nothing in it."""
    if not isinstance(cache, Cache):
        return False
    reads = all(type(layer) in (PrefixLayer, EditedPrefixLayer) for layer in attention_layers(cache))
    return reads and all(isinstance(layer, FixedStateLayer) for layer in state_layers(cache).values())

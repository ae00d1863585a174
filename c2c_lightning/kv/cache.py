"""The only code that knows how transformers keeps keys and values."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.layer import HybridStack, LayerKV, LayerStack, states_of
from c2c_lightning.kv.layout import CacheLayout
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


class RecordingLayer(PrefixLayer):
    """A prefix layer that hands the new entries to a prefill."""

    def __init__(self, prefix: LayerKV | None, record: LayerStack, last: bool) -> None:
        super().__init__(prefix)
        self.record, self.last = record, last

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """As `PrefixLayer.update`; the last layer ends the pass here, since nothing above its keys is read."""
        self.record.append(LayerKV(key_states, value_states))
        if self.last:
            raise PrefillDone
        return super().update(key_states, value_states)


class PrefillDone(Exception):
    """Not an error: the last layer that a prefill needs has given its keys and values."""


class Prefill:
    """Runs a model for its keys and values, and for the states of its recurrent and convolution layers.

    The pass ends at the last layer's keys and values: its attention and MLP, the final norm and the output head are
    never computed. No model code is changed: the cache layer itself ends the pass.
    """

    def __init__(
        self, model: nn.Module, num_layers: int, to_end: bool = False, layout: CacheLayout | None = None
    ) -> None:
        """Prepare to read the first `num_layers` layers of `model` that keep entries.

        Args:
            model: a causal language model.
            num_layers: how many.
            to_end: let the pass end by itself, for a model whose modules do something after their passes, as sharded
                ones do, or whose last states are needed. All its layers are read then.
            layout: the layers of a hybrid model's cache; None if all keep entries.
        """
        self.model, self.num_layers, self.to_end = model, num_layers, to_end
        self.layout = layout if layout is None or to_end else layout.until(num_layers)

    def run(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        prefix: LayerStack | None = None,
    ) -> LayerStack:
        """Keys and values of new tokens.

        Args:
            input_ids: (batch, new).
            attention_mask: (batch, prefix + new); None where no token is padding, or rows lie in one (`kv.packed`).
            position_ids: (batch, new); None for those that the model counts by itself.
            prefix: what came before, (batch, kv_heads, prefix, head_dim) in each layer; a hybrid's with its states.

        Returns:
            The new tokens' entries alone, for the first `num_layers` layers; a hybrid's with the states after them.

        Raises:
            UnsupportedModelError: the model does not fill one cache layer after the other.
        """
        record: LayerStack = []
        before: Sequence[LayerKV | None] = prefix if prefix is not None else [None] * self.num_layers
        layers = [RecordingLayer(kv, record, last=self._ends_at(n)) for n, kv in enumerate(before)]
        states = self._states(prefix)
        cache = Cache(layers=list(cache_layers(layers, states, StateLayer)))
        num_given = len(cache.layers)
        with suppress(PrefillDone):
            self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                **{CACHE_ARGUMENT: cache},
                use_cache=True,
                logits_to_keep=1,
            )
        self._check(len(record), len(cache.layers) - num_given)
        if states is None:
            return record
        return HybridStack(record, self._states_after(cache, states, input_ids, attention_mask))

    def _check(self, num_recorded: int, num_added: int) -> None:
        """Refuse a model that does not fill one cache layer after the other."""
        problem = ""
        if num_recorded != self.num_layers:
            kept = f"only {num_recorded} of {self.num_layers}" if num_recorded else f"none of its {self.num_layers}"
            problem = f"{kept} layers keep keys and values in a cache of transformers' usual kind when it runs on text"
        elif num_added:
            problem = f"it runs layers several times in one pass and adds {num_added} cache layers of its own for them"
        if problem:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} cannot take part in C2C: {problem}. "
                "Use a model with ordinary attention throughout."
            )

    def _ends_at(self, layer: int) -> bool:
        return layer == self.num_layers - 1 and not self.to_end

    def _states_after(
        self, cache: Cache, before: ModelStates, ids: Tensor, attention_mask: Tensor | None
    ) -> ModelStates:
        """The states after the new tokens."""
        is_one = attention_mask is not None and ids.shape[1] == 1
        after = states_after(cache, before, attention_mask[:, -1] if is_one else None)  # type: ignore[index]
        if self.to_end and not after.layers and any(kind.num_states for kind in before.layout.layers):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} keeps the states of its recurrent layers outside of its cache, so that "
                "no other pass can continue from them. Use another model."
            )
        return after

    def _states(self, prefix: LayerStack | None) -> ModelStates | None:
        """The states before the new tokens."""
        if self.layout is None:
            return None
        before = None if prefix is None else states_of(prefix)
        return ModelStates(self.layout, {} if before is None else before.layers)


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
    reads = all(isinstance(n, PrefixLayer) and not isinstance(n, RecordingLayer) for n in attention_layers(cache))
    return reads and all(isinstance(layer, FixedStateLayer) for layer in state_layers(cache).values())

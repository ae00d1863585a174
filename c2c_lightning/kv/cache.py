"""The only code that knows how transformers keeps keys and values."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.layer import LayerKV, LayerStack

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
    """Runs a model for its keys and values only.

    The pass ends at the last layer's keys and values: its attention and MLP, the final norm and the output head are
    never computed. No model code is changed: the cache layer itself ends the pass.
    """

    def __init__(self, model: nn.Module, num_layers: int, to_end: bool = False) -> None:
        """Prepare to read the first `num_layers` layers of `model`.

        Args:
            model: a causal language model.
            num_layers: how many.
            to_end: let the pass end by itself, for a model whose modules do something after their passes, as sharded
                ones do. All its layers are read then.
        """
        self.model, self.num_layers, self.to_end = model, num_layers, to_end

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
            attention_mask: (batch, prefix + new); None where rows lie in one (`kv.packed`).
            position_ids: (batch, new); None for those that the model counts by itself.
            prefix: what came before, (batch, kv_heads, prefix, head_dim) in each layer.

        Returns:
            The new tokens' entries alone, for the first `num_layers` layers.

        Raises:
            UnsupportedModelError: the model does not fill one cache layer after the other.
        """
        record: LayerStack = []
        before: Sequence[LayerKV | None] = prefix if prefix is not None else [None] * self.num_layers
        layers = [RecordingLayer(kv, record, last=self._ends_at(n)) for n, kv in enumerate(before)]
        with suppress(PrefillDone):
            self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                **{CACHE_ARGUMENT: Cache(layers=list(layers))},
                use_cache=True,
                logits_to_keep=1,
            )
        if len(record) != self.num_layers:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} filled {len(record)} of {self.num_layers} cache layers in one pass, so "
                "it has layers without keys and values of their own. Use a model with ordinary attention throughout."
            )
        return record

    def _ends_at(self, layer: int) -> bool:
        return layer == self.num_layers - 1 and not self.to_end


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


def edited_prefix_cache(kv: LayerStack, edit: NewEntries, join: JoinEntries | None = None) -> Cache:
    """`prefix_cache` with edited new entries."""
    return Cache(layers=[EditedPrefixLayer(layer, n, edit, join) for n, layer in enumerate(kv)])


def prefix_cache(kv: LayerStack, join: JoinEntries | None = None) -> Cache:
    """A cache that is read and never grows: for training passes over a fused prefix."""
    return Cache(layers=[PrefixLayer(layer, join) for layer in kv])


def dynamic_cache(kv: LayerStack) -> DynamicCache:
    """A cache that `generate` can grow, filled with the given entries."""
    if kv[0].num_tokens == 0:  # an empty tensor would keep its batch when rows are repeated for beams
        return DynamicCache()
    return DynamicCache(ddp_cache_data=[(layer.keys, layer.values) for layer in kv])


def cache_entries(cache: Cache) -> LayerStack:
    """The entries that lie in a cache, layer by layer."""
    entries = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer), "only caches of this package are read"
        assert layer.keys is not None
        assert layer.values is not None
        entries.append(LayerKV(layer.keys, layer.values))
    return entries


def is_replayable(cache: object) -> bool:
    """Whether a pass over a cache may run twice with the same result: it reads the cache and leaves nothing in it."""
    if not isinstance(cache, Cache):
        return False
    return all(isinstance(layer, PrefixLayer) and not isinstance(layer, RecordingLayer) for layer in cache.layers)

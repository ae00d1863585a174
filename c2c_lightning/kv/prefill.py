"""Prefill: a pass that ends once all keys, values and states that are needed are known."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress

from torch import Tensor, nn
from transformers.cache_utils import Cache

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.block_input import BlockInput
from c2c_lightning.kv.cache import CACHE_ARGUMENT, PrefixLayer, states_after
from c2c_lightning.kv.layer import HybridStack, LayerKV, LayerStack, states_of
from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.state_layers import StateLayer, cache_layers
from c2c_lightning.kv.states import ModelStates


class RecordingLayer(PrefixLayer):
    """A prefix layer that hands the new entries to a prefill."""

    def __init__(
        self, prefix: LayerKV | None, record: LayerStack, last: bool, hidden: BlockInput | None = None
    ) -> None:
        super().__init__(prefix)
        self.record, self.last, self.hidden = record, last, hidden

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """As `PrefixLayer.update`; the last layer ends the pass here, since nothing above its keys is read."""
        hidden = None if self.hidden is None else self.hidden.states
        self.record.append(LayerKV(key_states, value_states, hidden))
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
        self,
        model: nn.Module,
        num_layers: int,
        to_end: bool = False,
        layout: CacheLayout | None = None,
        blocks: Sequence[nn.Module] = (),
    ) -> None:
        """Prepare to read the first `num_layers` layers of `model` that keep entries.

        Args:
            model: a causal language model.
            num_layers: how many.
            to_end: let the pass end by itself, for a model whose modules do something after their passes, as sharded
                ones do, or whose last states are needed. All its layers are read then.
            layout: the layers of a hybrid model's cache; None if all keep entries.
            blocks: its decoder layers, where the hidden states that enter them are needed too.
        """
        self.model, self.num_layers, self.to_end, self.blocks = model, num_layers, to_end, blocks
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
        hidden = BlockInput() if self.blocks else None
        layers = [RecordingLayer(kv, record, self._ends_at(n), hidden) for n, kv in enumerate(before)]
        states = self._states(prefix)
        cache = Cache(layers=list(cache_layers(layers, states, StateLayer)))
        num_given = len(cache.layers)
        with suppress(PrefillDone), nullcontext() if hidden is None else hidden.watch(self.blocks):
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

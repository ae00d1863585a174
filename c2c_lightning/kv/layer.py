"""Keys and values of one layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from c2c_lightning.kv.states import ModelStates


@dataclass(frozen=True)
class LayerKV:
    """Keys and values of one layer, after RoPE, as they lie in the cache.

    Attributes:
        keys: of all tokens.
        values: of all tokens.
        hidden: hidden states that the layer computed them from, where a fuser reads these.
    """

    keys: Float[Tensor, "batch kv_heads tokens key_dim"]
    values: Float[Tensor, "batch kv_heads tokens value_dim"]
    hidden: Float[Tensor, "batch 1 tokens hidden_size"] | None = None

    @classmethod
    def merge(cls, parts: "Sequence[LayerKV]", function: Callable[[list[Tensor]], Tensor]) -> "LayerKV":
        """One layer from several: a function of their keys, of their values, and of their hidden states."""
        hidden = [part.hidden for part in parts if part.hidden is not None]
        return cls(
            function([part.keys for part in parts]),
            function([part.values for part in parts]),
            function(hidden) if len(hidden) == len(parts) else None,
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> "LayerKV":
        """A function of keys, of values, and of hidden states; tokens are the third dimension of each."""
        return LayerKV.merge([self], lambda parts: function(parts[0]))

    @property
    def num_tokens(self) -> int:
        """Length of the cache, in tokens, padding included."""
        return self.keys.shape[2]

    def tokens(self, begin: int, end: int | None = None) -> "LayerKV":
        """The entries of some tokens."""
        return self.map(lambda entries: entries[:, :, begin:end])

    def rows(self, index: torch.Tensor) -> "LayerKV":
        """The entries of some rows of the batch."""
        index = index.to(self.keys.device)
        # Not indexing: its backward adds number by number.
        return self.map(lambda entries: entries.index_select(0, index))

    def repeat(self, repeats: int) -> "LayerKV":
        """Each row of the batch `repeats` times, for beams and several answers."""
        return self.map(lambda entries: entries.repeat_interleave(repeats, dim=0))

    def append(self, new: "LayerKV") -> "LayerKV":
        """These entries followed by newer ones."""
        # Without a copy: a cache that was never filled is empty, and a model may have nothing to add.
        if self.num_tokens == 0:
            return new
        if new.num_tokens == 0:
            return self
        return LayerKV.merge([self, new], lambda parts: torch.cat(parts, 2))

    def to(self, device: torch.device) -> "LayerKV":
        """The same entries on another device."""
        return self.map(lambda entries: entries.to(device, non_blocking=True))


LayerStack = list[LayerKV]
"""One `LayerKV` for each layer of a model, first layer first."""

SharerKV = Sequence[LayerStack | None]
"""The cache of each sharer, None for one that is left out."""


class HybridStack(list[LayerKV]):
    """The entries of a hybrid model's attention layers, with the states of its other layers after the last token.

    Lists made of its layers (some tokens, fused entries) carry no states: those after other tokens are other states.

    Attributes:
        states: the states after the last token.
    """

    def __init__(self, layers: Sequence[LayerKV], states: ModelStates) -> None:
        super().__init__(layers)
        self.states = states


def states_of(kv: Sequence[LayerKV]) -> ModelStates | None:
    """The states that a stack carries."""
    return kv.states if isinstance(kv, HybridStack) else None


def with_states(kv: LayerStack, states: ModelStates | None) -> LayerStack:
    """A stack with the states after its last token, None for a model without states."""
    return kv if states is None else HybridStack(kv, states)


def append_kv(kv: LayerStack, new: LayerStack) -> LayerStack:
    """A cache followed by newer entries, layer by layer, and with the newer states."""
    entries = [layer.append(added) for layer, added in zip(kv, new, strict=True)]
    has_new = bool(new) and new[0].num_tokens > 0
    return with_states(entries, states_of(new if has_new else kv))


def select_rows(kv: LayerStack, rows: Int[torch.Tensor, " rows"]) -> LayerStack:
    """Some rows of a cache, in any order and number, with their states."""
    states = states_of(kv)
    return with_states([layer.rows(rows) for layer in kv], None if states is None else states.rows(rows))

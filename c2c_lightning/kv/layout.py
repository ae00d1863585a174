"""Which layers of a model keep keys and values, a recurrent or convolution state, both or neither."""

from dataclasses import dataclass
from typing import Any, Self

from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin


@dataclass(frozen=True)
class CacheLayerKind:
    """What one layer of a cache keeps.

    Attributes:
        has_entries: keys and values of every token.
        num_states: number of its recurrent or convolution states.
    """

    has_entries: bool
    num_states: int = 0


@dataclass(frozen=True)
class CacheLayout:
    """The layers of a hybrid model's cache, first layer first.

    Layer maps and geometries count the layers with entries only.
    """

    layers: tuple[CacheLayerKind, ...]

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """The layout of a model by its configuration.

        None where no layer has a state and those with entries come first: where layers share a cache, the last ones
        have none of their own.
        """
        kinds = tuple(_kind(layer) for layer in DynamicCache(config=config.get_text_config(decoder=True)).layers)
        own = sum(kind.has_entries for kind in kinds)
        is_ordinary = kinds[:own] == (CacheLayerKind(has_entries=True),) * own
        return None if is_ordinary and not any(kind.num_states for kind in kinds) else cls(kinds)

    @property
    def num_attention_layers(self) -> int:
        """Number of layers with entries."""
        return sum(kind.has_entries for kind in self.layers)

    @property
    def has_states(self) -> bool:
        """Whether any layer keeps a state; others without entries have no attention, or read another layer's."""
        return any(kind.num_states for kind in self.layers)

    @property
    def ends_in_states(self) -> bool:
        """Whether a state is updated in or after the last layer with entries, so that a prefill must run to its end."""
        return any(kind.num_states for kind in self.layers[len(self.until(self.num_attention_layers).layers) - 1 :])

    def until(self, num_attention_layers: int) -> Self:
        """The layers up to the last of the first `num_attention_layers` layers with entries."""
        ends = [n + 1 for n, kind in enumerate(self.layers) if kind.has_entries]
        return type(self)(self.layers[: ends[num_attention_layers - 1] if num_attention_layers else 0])


def _kind(layer: Any) -> CacheLayerKind:
    states = layer.number_of_states if isinstance(layer, LinearAttentionCacheLayerMixin) else 0
    return CacheLayerKind(isinstance(layer, CacheLayerMixin), states)

"""Attention outputs of a model with other keys and values in its cache, compared with its own.

In a pass on the model's own cache, each attention layer computes its output a second time with each alternative cache.
The queries, and everything before a layer, are the model's own: the comparison is of one layer's entries alone. No
model code is changed: transformers looks up attention functions and masks by name.

Axes: B batch, P tokens of the cache, N new tokens, Q query heads, D head width.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.ops.ragged_attention import attention_function
from c2c_lightning.ops.replaced_attention import replaced_attention

NAME = "c2c_compared"
"""Name of the attention function in the registries of transformers."""


@dataclass
class AttentionComparison:
    """Caches to compare with, and the result of a pass.

    Attributes:
        alternatives: other caches over the same tokens, by name.
        layers: the layers to compare.
        cosines: by alternative and layer (B, N, Q): the cosine of both outputs of each query head.
    """

    alternatives: Mapping[str, LayerStack]
    layers: Collection[int]
    cosines: dict[str, dict[int, Float[Tensor, "B N Q"]]] = field(default_factory=lambda: defaultdict(dict))

    def compare(self, layer: int, own: Float[Tensor, "B N Q D"], key: Tensor, value: Tensor, attend: Any) -> None:
        """Record the cosines of one layer; key and value are those of cache and new tokens."""
        for name, stack in self.alternatives.items():
            other = stack[layer]
            keys = torch.cat([other.keys, key[:, :, other.num_tokens :]], 2)
            values = torch.cat([other.values, value[:, :, other.num_tokens :]], 2)
            self.cosines[name][layer] = F.cosine_similarity(own.float(), attend(keys, values).float(), dim=-1)


#: The comparison of the running pass, and the name of the model's own attention function.
_running: ContextVar[tuple[AttentionComparison, str]] = ContextVar("comparison of the running pass")


@contextmanager
def compared_attention(model: nn.Module, comparison: AttentionComparison) -> Iterator[None]:
    """Within it, passes of `model` fill in `comparison`. No other thread may run the model."""
    # Ragged batching does not know the name: passes are padded.
    with replaced_attention(model, NAME, _running, lambda base: (comparison, base)):
        yield


def _mask(*args: Any, **kwargs: Any) -> Any:
    """The mask of the model's own attention function."""
    make: Callable[..., Any] = ALL_MASK_ATTENTION_FUNCTIONS[_running.get()[1]]
    return make(*args, **kwargs)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Any]:
    """The model's own attention; arguments as of any attention function of transformers."""
    comparison, base = _running.get()
    function = attention_function(module, base)
    own = function(module, query, key, value, attention_mask, **kwargs)
    layer: Any = module.layer_idx
    if layer in comparison.layers:
        comparison.compare(
            layer, own[0], key, value, lambda k, v: function(module, query, k, v, attention_mask, **kwargs)[0]
        )
    return own


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)

"""Attention masks of padded batches that are built without reading a value of the device.

With sdpa attention, transformers reads the padding mask to find out whether it could be left out: on a GPU the host
waits for the device in every pass. Here the caller knows on the host that a batch is padded, so nothing is read. No
model code is changed: transformers looks up attention functions and masks by name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

#: Name of sdpa with unread masks in the registries of transformers.
NAME = "c2c_sdpa_unread"


@contextmanager
def unread_mask(model: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Within it, `model` builds its sdpa masks without reading `mask`. No other thread may run the model.

    Without effect where nothing is padded (`mask` is None), for eager attention, which reads no mask, and for flash
    attention, which has to: it removes the padding.

    Args:
        model: a causal language model.
        mask: (batch, columns), the attention mask of the pass.
    """
    config: Any = model.config
    config = config.get_text_config()
    base = config._attn_implementation
    if mask is None or base != "sdpa" or not getattr(type(model), "_supports_attention_backend", False):
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = base


def _mask(*args: Any, **kwargs: Any) -> Any:
    """The sdpa mask, always built."""
    make: Callable[..., Any] = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    return make(*args, **{**kwargs, "allow_is_causal_skip": False})


AttentionInterface.register(NAME, ALL_ATTENTION_FUNCTIONS["sdpa"])
AttentionMaskInterface.register(NAME, _mask)

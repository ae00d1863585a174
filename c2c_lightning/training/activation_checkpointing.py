"""Activation checkpointing of the receiver's response pass.

transformers' own drops the cache that is attended to. Here each decoder layer runs as it is, and once more on the way
back: the fused prefix is only read, so reading it twice changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from c2c_lightning.kv.cache import CACHE_ARGUMENT, is_replayable
from c2c_lightning.ops.ragged_attention import current_attention


@contextmanager
def activation_checkpointing_context(model: nn.Module, blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While it lasts, passes with gradients keep only what goes into each block, and the rest is computed again.

    Passes that leave entries in a cache, such as prefills, are not touched. The way back may come later.

    Args:
        model: a language model.
        blocks: its decoder layers.
    """
    with ExitStack() as stack:
        for block in blocks:
            # On the instance and below its hooks: those of sharding must not run a second time.
            block.forward = _checkpointed(block.forward, model)
            stack.callback(delattr, block, "forward")
        yield


def _checkpointed(forward: Callable[..., Any], model: nn.Module) -> Callable[..., Any]:
    @wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and is_replayable(kwargs.get(CACHE_ARGUMENT)):
            again = current_attention(model)
            return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again), **kwargs)
        return forward(*args, **kwargs)

    return wrapper

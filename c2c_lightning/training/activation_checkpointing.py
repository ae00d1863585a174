"""Activation checkpointing of the receiver's response pass.

transformers' implementation drops the cache (5.23). Here each decoder layer runs once forward and once more in the
backward pass: the fused prefix is only read, so the second run gives the same values.
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
    """Within it, passes with gradients keep only the inputs of each block and recompute the rest.

    Passes that leave entries in a cache, such as prefills, are not affected. The backward pass may come later.
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

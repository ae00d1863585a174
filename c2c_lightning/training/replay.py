"""Activation checkpointing of the receiver's response pass.

transformers' own drops the cache that is attended to. Here each decoder layer runs as it is, and once more on the way
back: the fused prefix is only read, so reading it twice changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from c2c_lightning.kv.cache import is_replayable


@contextmanager
def replayed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While it lasts, passes with gradients keep only what goes into each block, and the rest is computed again.

    Passes that leave entries in a cache, such as prefills, are not touched. The way back may come later.

    Args:
        blocks: the decoder layers of one model.
    """
    with ExitStack() as stack:
        for block in blocks:
            # On the instance and below its hooks: those of sharding must not run a second time.
            block.forward = _checkpointed(block.forward)
            stack.callback(block.__dict__.pop, "forward")
        yield


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and is_replayable(kwargs.get("past_key_values")):
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    return wrapper

"""Hidden states of many short sequences that continue few prefixes, in one pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from c2c_lightning.kv.cache import CACHE_ARGUMENT, prefix_cache
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.output_head import transformer_body
from c2c_lightning.ops.branch_attention import Branches, branch_attention


@torch.no_grad()
def branch_states(
    lm: FrozenLM,
    ids: Int[Tensor, " new"],
    positions: Int[Tensor, " new"],
    prefixes: Sequence[LayerStack],
    groups: Sequence[Branches],
) -> Float[Tensor, "new width"]:
    """Last hidden states of the new tokens of all branches.

    Args:
        lm: a model that supports ragged attention.
        ids: of all branches, one after the other.
        positions: likewise.
        prefixes: caches of one row each, those of all groups in order.
        groups: which prefix each branch continues.
    """
    packed = [LayerKV.merge(layers, lambda parts: torch.cat(parts, 2)) for layers in zip(*prefixes, strict=True)]
    with lm.lock, branch_attention(lm.model, groups):
        found: Tensor = transformer_body(lm.model)(
            input_ids=ids[None].to(lm.device),
            position_ids=positions[None].to(lm.device),
            **{CACHE_ARGUMENT: prefix_cache(packed)},
            use_cache=False,
        ).last_hidden_state
    return found[0]

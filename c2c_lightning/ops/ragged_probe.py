"""Whether ragged batching gives a model's own cache entries."""

import logging
from typing import Any

import torch

from c2c_lightning.kv.cache_probe import HALF_TOLERANCE, TOLERANCE, entry_difference
from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.prefill import Prefill
from c2c_lightning.ops.ragged_attention import RaggedBatch, SequenceLengths, ragged_attention

logger = logging.getLogger(__name__)


@torch.no_grad()
def runs_ragged(model: Any, num_layers: int, layout: CacheLayout | None = None) -> bool:
    """Whether ragged batching gives a model's own entries, found by comparing them on two short sequences.

    Some models look up their attention by name, but change its mask first, so that `supports_ragged_attention` alone
    does not suffice.

    Args:
        model: a causal language model on a CPU that looks up its attention; no other thread may run it.
        num_layers: number of its layers with keys and values.
        layout: the layers of its cache, where not all keep keys and values.
    """
    if layout is not None and layout.has_states:  # in one row the states of a sequence would pass over to the next
        return False
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    ids, positions = torch.tensor([[0, 5, 6, 7], [5, 6, 7, 8]]), (mask.cumsum(1) - 1).clamp(min=0)
    ids = ids % model.get_input_embeddings().weight.shape[0]
    prefill, ragged = Prefill(model, num_layers, layout=layout), RaggedBatch.of(mask.bool())
    padded = prefill.run(ids, mask, positions)
    try:
        with ragged_attention(model, SequenceLengths(ragged.lengths, (0,) * len(ragged.lengths))):
            packed = prefill.run(ragged.pack(ids), None, ragged.pack(positions))
    except Exception as error:  # model code may fail in any way on a mask that is no tensor
        logger.info("%s runs padded batches: %s", type(model).__name__, error)
        return False
    same = [ragged.unpack_kv(ragged.pack_kv(layer)) for layer in padded]
    limit = TOLERANCE.get(padded[0].keys.dtype, HALF_TOLERANCE)
    return entry_difference(same, [ragged.unpack_kv(layer) for layer in packed]) < limit

"""Finds the rotary table of each layer of a language model: candidates from its buffers, confirmed by its own keys.

A sequence of one token attends to itself alone, so that its hidden states do not depend on its position, and its keys
at two positions differ by the rotary embedding of the layer and nothing else. This holds for every rotary variant:
partial, yarn, llama3, longrope, several bases, interleaved pairs, layers without rotation.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.kv.rotary import LayerRotary, rotate

PROBED_POSITIONS = (0, 1, 2, 5, 17, 61, 250, 999)

MAX_ERROR = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest relative difference of keys, by their type."""

HALF_PRECISION_ERROR = 3e-2

OneTokenKeys = Callable[[Tensor, Tensor], LayerStack]
"""Given token ids and position ids, (rows, 1) each: the entries of sequences of one token."""


def probe_rotary(model: nn.Module, one_token_kv: OneTokenKeys, max_position: int, name: str) -> list[LayerRotary]:
    """The rotary table of each layer.

    Args:
        model: a causal language model.
        one_token_kv: runs it.
        max_position: the largest position at which it may be run.
        name: of the model, for messages.

    Raises:
        UnsupportedModelError: a layer whose keys depend on the position in another way.
    """
    positions = torch.tensor([p for p in PROBED_POSITIONS if p <= max_position])
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    # Several tokens: the embedding of one may be zero.
    ids = torch.tensor([vocabulary // 2, vocabulary // 3, 1]).repeat_interleave(len(positions))
    kv = one_token_kv(ids[:, None], positions.repeat(3)[:, None])
    candidates = _candidates(model)
    return [_table_of(layer.keys, positions, candidates, n, name) for n, layer in enumerate(kv)]


def _candidates(model: nn.Module) -> list[LayerRotary]:
    """No rotation, and all frequencies in the model's buffers, in both layouts."""
    # `original_inv_freq` is a copy that some variants return to.
    buffers = [b for name, b in model.named_buffers() if name.endswith("inv_freq") and "original" not in name]
    distinct = dict.fromkeys(tuple(buffer.float().cpu().tolist()) for buffer in buffers if buffer.ndim == 1)
    return [LayerRotary(), *(LayerRotary(f, interleaved) for f in distinct for interleaved in (False, True))]


def _table_of(
    keys: Float[Tensor, "rows H 1 D"], positions: Tensor, candidates: Sequence[LayerRotary], layer: int, name: str
) -> LayerRotary:
    """The candidate that turns the keys of position 0 into those of the other positions."""
    limit = MAX_ERROR.get(keys.dtype, HALF_PRECISION_ERROR)
    by_position = keys.detach().float().cpu().unflatten(0, (3, len(positions)))
    errors = [_error(by_position, positions, table) for table in candidates]
    best = min(range(len(candidates)), key=errors.__getitem__)
    if not errors[best] <= limit:
        raise UnsupportedModelError(
            f"the keys of layer {layer} of {name} depend on their position in a way that is no known rotary embedding "
            f"(the nearest of {len(candidates) - 1} tables differs by {errors[best]:.2g}), so their position cannot "
            "be removed. Use a fuser kind other than `rotary_free`."
        )
    return candidates[best]


def _error(keys: Float[Tensor, "ids P H 1 D"], positions: Tensor, table: LayerRotary) -> float:
    """Relative difference between the measured keys and those that a table predicts."""
    if 2 * len(table.frequencies) > keys.shape[-1]:
        return float("inf")
    angle = positions.float()[:, None] * torch.tensor(table.frequencies)
    predicted = rotate(keys[:, :1].expand_as(keys), angle[:, None, None], table.interleaved)
    return float(torch.linalg.vector_norm(predicted - keys) / torch.linalg.vector_norm(keys))

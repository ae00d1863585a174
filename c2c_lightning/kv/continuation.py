"""Continuing the cache of a hybrid model whose passes over several tokens ignore the states that they begin with.

transformers gives the states of Mamba-1 layers (Jamba, Zamba) to passes over one token only: longer ones begin with
empty states, without an error. Their caches are continued token by token.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor, nn

from c2c_lightning.errors import CacheStateError
from c2c_lightning.kv.layer import HybridStack, LayerStack, append_kv, states_of, with_states
from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.prefill import Prefill
from c2c_lightning.kv.states import LayerState, ModelStates


def check_states(kv: LayerStack, layout: CacheLayout | None, name: str) -> None:
    """Refuse to continue a hybrid's cache without its states.

    Args:
        kv: the cache.
        layout: the layers of the model's cache; None for a model without states.
        name: name of the model, for the message.

    Raises:
        CacheStateError: the states are missing.
    """
    if layout is not None and states_of(kv) is None:
        raise CacheStateError(
            f"A cache of {name} cannot be continued: the states of its recurrent and convolution layers are missing, "
            "as in caches that were edited, cut or received. Use `fusion_mode: prefill`, which never continues a "
            "sharer's cache, or give caches as `prefill_sharers` returns them."
        )


@torch.no_grad()
def ignores_states(model: nn.Module, layout: CacheLayout | None) -> bool:
    """Whether passes over several tokens ignore the recurrent states that they begin with.

    Found out by continuing from two different states.
    """
    if layout is None:
        return False
    device = next(model.parameters()).device
    tokens, positions = torch.zeros(1, 2, dtype=torch.long, device=device), torch.arange(2, device=device)[None]
    prefill, mask = Prefill(model, layout.num_attention_layers, to_end=True, layout=layout), torch.ones_like(tokens)
    prefix = prefill.run(tokens, mask, positions)
    states = states_of(prefix)
    assert states is not None
    if not any(state is not None for layer in states.layers.values() for state in layer.recurrent):
        return False
    one, other = (
        prefill.run(tokens, torch.cat([mask, mask], 1), positions + 2, HybridStack(prefix, old))
        for old in (states, ModelStates(layout, {n: _changed(layer) for n, layer in states.layers.items()}))
    )
    return all(torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(other), strict=True))


def _changed(layer: LayerState) -> LayerState:
    return LayerState(layer.conv, tuple(None if state is None else state + 1 for state in layer.recurrent))


def _tensors(kv: LayerStack) -> Iterator[Tensor]:
    """All entries and states of a cache."""
    states = states_of(kv)
    assert states is not None
    for layer in kv:
        yield from (layer.keys, layer.values)
    for state in states.layers.values():
        yield from (tensor for tensor in state.conv + state.recurrent if tensor is not None)


def first_columns(attention_mask: Int[Tensor, "batch all"] | None, until: int) -> Int[Tensor, "batch until"] | None:
    """The mask of the first columns; None where no token is padding."""
    return None if attention_mask is None else attention_mask[:, :until]


def prefill_by_token(
    prefill: Prefill,
    input_ids: Int[Tensor, "batch new"],
    attention_mask: Int[Tensor, "batch all"] | None,
    position_ids: Int[Tensor, "batch new"],
    prefix: LayerStack,
) -> LayerStack:
    """As `Prefill.run`, one token after the other."""
    kv, begin = prefix, prefix[0].num_tokens
    for column in range(input_ids.shape[1]):
        one, mask = slice(column, column + 1), first_columns(attention_mask, begin + column + 1)
        new = prefill.run(input_ids[:, one], mask, position_ids[:, one], kv)
        kv = append_kv(kv, new)
    return with_states([layer.tokens(begin) for layer in kv], states_of(kv))

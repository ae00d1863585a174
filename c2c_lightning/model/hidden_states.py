"""Last hidden states of hybrid models in passes over single tokens, with gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.kv.cache import CACHE_ARGUMENT, NewEntries, cache_entries, edited_cache_layers, states_after
from c2c_lightning.kv.continuation import first_columns
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.response_prefix import ResponsePrefix


def hidden_states_by_token(
    body: Any,
    input_ids: Int[Tensor, "batch new"],
    attention_mask: Int[Tensor, "batch all"] | None,
    position_ids: Int[Tensor, "batch new"],
    prefix: ResponsePrefix,
) -> Float[Tensor, "batch new width"]:
    """Last hidden states of the tokens after a prefix, one token after the other; gradients pass."""
    kv, states, hidden, num_new = prefix.entries, prefix.states, [], input_ids.shape[1]
    assert states is not None
    for column in range(num_new):
        one, mask = slice(column, column + 1), first_columns(attention_mask, prefix.num_tokens + column + 1)
        cache = Cache(layers=list(edited_cache_layers(kv, _edit_of_column(prefix.edit, column, num_new), states)))
        output = body(
            input_ids=input_ids[:, one], attention_mask=mask, position_ids=position_ids[:, one],
            **{CACHE_ARGUMENT: cache}, use_cache=False,
        )  # fmt: skip
        hidden.append(output.last_hidden_state)
        kv, states = cache_entries(cache), states_after(cache, states, None if mask is None else mask[:, -1])
    return torch.cat(hidden, 1)


def hidden_states_of_one(
    body: Any,
    input_ids: Int[Tensor, "batch 1"],
    attention_mask: Int[Tensor, "batch all"] | None,
    position_ids: Int[Tensor, "batch 1"],
    prefix: ResponsePrefix,
) -> Float[Tensor, "batch 1 width"]:
    """Last hidden states of one token, from a pass over two: kernels for single tokens have no gradients."""
    mask = None if attention_mask is None else torch.cat([attention_mask, attention_mask[:, -1:]], 1)
    edit = None if prefix.edit is None else _edit_of_first(prefix.edit)
    output = body(
        input_ids=torch.cat([input_ids, input_ids], 1),
        attention_mask=mask,
        position_ids=torch.cat([position_ids, position_ids + 1], 1),
        **{CACHE_ARGUMENT: prefix.cache(edit)},
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden[:, :1]


def _edit_of_first(edit: NewEntries) -> NewEntries:
    """An edit of the first of two entries."""
    return lambda layer, new: edit(layer, new.tokens(0, 1)).append(new.tokens(1))


def _edit_of_column(edit: NewEntries | None, column: int, num_columns: int) -> NewEntries:
    """An edit of all new entries as one of the entries of one column."""
    if edit is None:
        return lambda layer, new: new
    before_after = 0, 0, column, num_columns - 1 - column

    def edit_column(layer: int, new: LayerKV) -> LayerKV:
        padded = LayerKV(F.pad(new.keys, before_after), F.pad(new.values, before_after))
        return edit(layer, padded).tokens(column, column + 1)

    return edit_column

"""Cache entries of fused tokens: the receiver's own, the fused ones, and the sharer's that they were fused with."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import DataError
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.c2c import C2CModel


@dataclass(frozen=True)
class TokenEntries:
    """Entries of the same tokens, layer by layer of the receiver.

    Attributes:
        keys: (tokens, heads * width) of each receiver layer.
        values: likewise.
    """

    keys: list[Float[Tensor, "tokens width"]]
    values: list[Float[Tensor, "tokens width"]]


@dataclass(frozen=True)
class FusedEntries:
    """Entries of fused tokens; `sharer` has those of the layer that each receiver layer is fused with.

    Attributes:
        layers: the receiver layers that are fused.
    """

    layers: list[int]
    sharer: TokenEntries
    receiver: TokenEntries
    fused: TokenEntries

    @property
    def num_tokens(self) -> int:
        """Number of tokens."""
        return len(self.receiver.keys[0])

    def part(self, begin: int, end: int) -> "FusedEntries":
        """The entries of some of the tokens."""
        cut = [
            TokenEntries([k[begin:end] for k in entries.keys], [v[begin:end] for v in entries.values])
            for entries in (self.sharer, self.receiver, self.fused)
        ]
        return FusedEntries(self.layers, *cut)


@torch.no_grad()
def collect_entries(model: C2CModel, prompts: Iterable[PromptBatch], num_tokens: int, sharer: int = 0) -> FusedEntries:
    """The entries of the first fused tokens of prompts, float32 on the CPU.

    Args:
        model: the fused model.
        prompts: batches of prompts; no more are read than needed.
        num_tokens: tokens to collect.
        sharer: number of the sharer whose tokens count.

    Raises:
        DataError: the prompts have fewer fused tokens.
    """
    layer_map = model.fuser.sharers[sharer].layer_map
    layers = [n for n, source in enumerate(layer_map) if source is not None]
    sources = [source for source in layer_map if source is not None]
    found: list[tuple[LayerStack, LayerStack, LayerStack]] = []
    count = rows = 0
    for prompt in prompts:
        batch = _entries_of(model, prompt.to(model.receiver.device), sharer, layers, sources)
        found.append(batch)
        count, rows = count + batch[0][0].keys.shape[0], rows + len(prompt)
        if count >= num_tokens:
            break
    if count < num_tokens:
        advice = f"about {math.ceil(num_tokens * rows / count)} such rows would do" if count else "no token is fused"
        raise DataError(
            f"the {rows} prompts have {count} fused tokens, but {num_tokens} are needed: {advice}. Give more rows "
            "(`sources`, `max_rows`), or lower `tokens`."
        )
    parts = [_joined([batch[which] for batch in found], num_tokens) for which in range(3)]
    return FusedEntries(layers, *parts)


def _entries_of(
    model: C2CModel, prompt: PromptBatch, sharer: int, layers: list[int], sources: list[int]
) -> tuple[LayerStack, LayerStack, LayerStack]:
    """Sharer's, receiver's and fused entries of a batch's fused tokens, packed to (tokens, 1, heads, width)."""
    sharer_kv = model.prefill_sharers(prompt)
    fused = cache_entries(model.fuse(prompt, sharer_kv=sharer_kv))
    alone = cache_entries(model.fuse(prompt, active_sharers=()))
    # The last prompt token is in no cache.
    index = prompt.sharers[sharer].index[:, :-1]
    rows, columns = (index >= 0).nonzero(as_tuple=True)
    theirs = sharer_kv[sharer]
    assert theirs is not None
    return (
        [_packed(theirs[n], rows, index[rows, columns]) for n in sources],
        [_packed(alone[n], rows, columns) for n in layers],
        [_packed(fused[n], rows, columns) for n in layers],
    )


def _packed(layer: LayerKV, rows: Int[Tensor, " tokens"], columns: Int[Tensor, " tokens"]) -> LayerKV:
    # (batch, heads, tokens, width) at pairs of row and column: (tokens, heads, width)
    keys, values = (part[rows, :, columns].float().cpu().unsqueeze(1) for part in (layer.keys, layer.values))
    return LayerKV(keys, values)


def _joined(batches: list[LayerStack], num_tokens: int) -> TokenEntries:
    """Batches one after the other, heads flattened, cut to a number of tokens."""
    layers = range(len(batches[0]))
    keys = [torch.cat([stack[n].keys.flatten(1) for stack in batches])[:num_tokens] for n in layers]
    values = [torch.cat([stack[n].values.flatten(1) for stack in batches])[:num_tokens] for n in layers]
    return TokenEntries(keys, values)

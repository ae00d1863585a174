"""The entries of one frozen model for the rows of a batch: kept ones, and new ones that are computed and kept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.training.frozen_cache.common_prefix import CommonPrefix
from c2c_lightning.training.frozen_cache.kept_model import KeptModel
from c2c_lightning.training.frozen_cache.prefill_store import KeptRow, PrefillStore
from c2c_lightning.training.frozen_cache.row_tokens import RowTokens, as_batch

#: On CPUs the last elements of a pass, beyond a multiple of this, and the matrix products of few tokens are rounded
#: differently, so that entries would depend on the rest of the batch.
TOKEN_BLOCK = 32


@dataclass
class PrefillCount:
    """Prefills of rows since the start.

    Attributes:
        reused_rows: rows whose entries were kept.
        reused_tokens: their tokens up to the last one that is needed.
        new_rows: rows that were computed.
        new_tokens: their tokens.
        seconds: time that the computed ones took.
    """

    reused_rows: int = 0
    reused_tokens: int = 0
    new_rows: int = 0
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def saved_seconds(self) -> float:
        """Time that the reused rows would have taken at the rate of the computed ones."""
        return self.seconds / self.new_tokens * self.reused_tokens if self.new_tokens else 0.0

    def describe(self) -> str:
        """The numbers of rows in words."""
        return f"{self.reused_rows:,} of {self.reused_rows + self.new_rows:,} prefills"


class ModelPrefills:
    """The entries of one frozen model, row by row.

    An entry depends on the tokens of its row alone, so rows may be shuffled, padded and batched in any way. On a CPU
    rows run without padding, so that in float32 and one thread not even rounding depends on the other rows of a batch.

    Attributes:
        name: see `KeptModel`.
        lm: the model.
        layout: the layers that are kept.
        store: keeps the rows.
        prefix: tokens that most rows begin with, computed once; None where rows have none in common.
        count: of reused and of computed rows.
    """

    def __init__(self, model: KeptModel, store: PrefillStore, prefix: CommonPrefix | None = None) -> None:
        self.name, self.lm, self.layout, self.prefix = model.name, model.lm, model.layout, prefix
        self.store, self.count = store, PrefillCount()

    @torch.no_grad()
    def cache(
        self, rows: Sequence[RowTokens], wanted: Sequence[Int[Tensor, " _"]], columns: int, keep: bool
    ) -> LayerStack:
        """The entries of a batch, up to the last needed layer; zeros where none are needed.

        Args:
            rows: the tokens of each row.
            wanted: for each row the tokens whose entries are needed.
            columns: length of the cache in columns.
            keep: whether computed entries are kept.
        """
        if not self.layout.layers:
            return []
        known = self._known(rows, wanted)
        missing = {row.key: (row, want) for row, want in zip(rows, wanted, strict=True) if row.key not in known}
        new = self._computed([row for row, _ in missing.values()], [want for _, want in missing.values()])
        for key, kept in new.items():
            known[key] = kept
            if keep:
                self.store.put(key, kept)
        return self._joined([known[row.key] for row in rows], [row.first for row in rows], columns)

    def _known(self, rows: Sequence[RowTokens], wanted: Sequence[Tensor]) -> dict[str, KeptRow]:
        known: dict[str, KeptRow] = {}
        for row, want in zip(rows, wanted, strict=True):
            kept = self.store.get(row.key)
            if kept is not None and kept.covers(want):
                known[row.key] = kept
                self.count.reused_rows += 1
                self.count.reused_tokens += len(row)
        return known

    def _computed(self, rows: Sequence[RowTokens], wanted: Sequence[Tensor]) -> dict[str, KeptRow]:
        if not rows:
            return {}
        begin = time.perf_counter()
        entries: dict[str, Tensor] = {}
        prefix, pairs = self.prefix, list(zip(rows, wanted, strict=True))
        whole = pairs if prefix is None else [pair for pair in pairs if not prefix.begins(pair[0])]
        if prefix is not None:
            entries |= self._after_prefix(prefix, [pair for pair in pairs if prefix.begins(pair[0])])
        if whole:
            flat = self._flat([row for row, _ in whole], [want for _, want in whole])
            # Copies, so that no row keeps the memory of the whole batch.
            parts = [part.clone() for part in flat.split([len(want) for _, want in whole])]
            entries |= {row.key: part for (row, _), part in zip(whole, parts, strict=True)}
        self.count.seconds += time.perf_counter() - begin
        self.count.new_rows += len(rows)
        self.count.new_tokens += sum(map(len, rows))
        return {row.key: KeptRow(want.int(), entries[row.key]) for row, want in pairs}

    def _after_prefix(self, prefix: CommonPrefix, pairs: Sequence[tuple[RowTokens, Tensor]]) -> dict[str, Tensor]:
        """Entries of the wanted tokens of rows that begin with the prefix."""
        caches = prefix.caches([row for row, _ in pairs])
        return {
            row.key: self.layout.flatten(kv, torch.zeros_like(want).to(self.lm.device), want.to(self.lm.device)).cpu()
            for (row, want), kv in zip(pairs, caches, strict=True)
        }

    def _flat(self, rows: Sequence[RowTokens], wanted: Sequence[Tensor]) -> Tensor:
        """Entries of the wanted tokens of all rows, (tokens, values)."""
        tokens = as_batch([*rows, *_filler(rows)])
        width = tokens.input_ids.shape[1]
        ids, mask, positions = tokens.input_ids, tokens.padding_mask(), tokens.positions
        kv = self.lm.prefill(ids, mask, positions, num_layers=len(self.layout.sides), by_row=True)
        row = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(want) for want in wanted]))
        column = torch.cat([want + width - len(tokens) for tokens, want in zip(rows, wanted, strict=True)])
        device = self.lm.device
        return self.layout.flatten(kv, row.to(device), column.to(device)).cpu()

    def _joined(self, kept: Sequence[KeptRow], firsts: Sequence[int], columns: int) -> LayerStack:
        # A row may be known for more tokens than this batch needs.
        parts = [row.tokens_before(columns - first) for row, first in zip(kept, firsts, strict=True)]
        entries = torch.cat([part.entries for part in parts])
        starts = [n * columns + first for n, first in enumerate(firsts)]
        index = torch.cat([start + part.tokens for start, part in zip(starts, parts, strict=True)])
        flat = entries.new_zeros(len(kept) * columns, entries.shape[1]).index_copy_(0, index.long(), entries)
        return self.layout.unflatten(flat.view(len(kept), columns, -1).to(self.lm.device, non_blocking=True))


def _filler(rows: Sequence[RowTokens]) -> list[RowTokens]:
    """Rows that fill a pass up to a multiple of `TOKEN_BLOCK` tokens."""
    longest, missing, filler = max(rows, key=len), -sum(map(len, rows)) % TOKEN_BLOCK, []
    while missing:
        filler.append(RowTokens(longest.inputs[:, :missing], 0))
        missing -= len(filler[-1])
    return filler

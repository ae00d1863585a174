"""The receiver over what follows the last fusion span: the rest of the prompt, then the response (paper, Eq. 4)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import TokenBatch, TrainingBatch, positions_of
from c2c_lightning.kv.cache import NewEntries, edited_prefix_cache, prefix_cache
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.ops.chunked_cross_entropy import summed_loss
from c2c_lightning.ops.ragged_attention import Packing, Rows, row_by_row


@dataclass(frozen=True)
class Prefix:
    """What a teacher-forced pass goes on from.

    Attributes:
        entries: the receiver's entries of the tokens before it; they may carry gradients.
        edit: for a mode that fuses in the pass itself: given the rows of the batch that run, what it makes of new
            entries.
    """

    entries: LayerStack
    edit: Callable[[Tensor], NewEntries] | None = None

    @property
    def num_tokens(self) -> int:
        """Its length, padding included."""
        return self.entries[0].num_tokens

    def rows(self, rows: Tensor) -> "Prefix":
        """That of some rows, in any order and number: several responses to one prompt."""
        edit = None if self.edit is None else partial(_edit_of, self.edit, rows)
        return Prefix([layer.rows(rows) for layer in self.entries], edit)

    def cache(self) -> Cache:
        """A cache to be read, never written."""
        edit = self._edit()
        return prefix_cache(self.entries) if edit is None else edited_prefix_cache(self.entries, edit)

    def packed_cache(self, packing: Packing, rows: Rows) -> Cache:
        """`cache` for new tokens that lie in one row."""
        edit = self._edit()
        if edit is None:
            return prefix_cache(self.entries, rows.behind)

        def edit_packed(layer: int, new: LayerKV) -> LayerKV:
            return packing.pack_kv(edit(layer, packing.unpack_kv(new)))

        return edited_prefix_cache(self.entries, edit_packed, rows.behind)

    def _edit(self) -> NewEntries | None:
        keys = self.entries[0].keys
        return None if self.edit is None else self.edit(torch.arange(len(keys), device=keys.device))


def _edit_of(edit: Callable[[Tensor], NewEntries], chosen: Tensor, rows: Tensor) -> NewEntries:
    """What `edit` makes of the rows of a choice of rows."""
    return edit(chosen[rows])


@dataclass(frozen=True)
class Response:
    """A batch of responses behind its prompts.

    Attributes:
        tokens: the receiver's prompts, left padded.
        prefix: the fused entries of their first columns.
        ids: (batch, n), response tokens to run.
        mask: (batch, n), which of them are real.
        is_packed: whether all are run as one row. Nothing is known then of what is not real.
    """

    tokens: TokenBatch
    prefix: Prefix
    ids: Tensor
    mask: Tensor
    is_packed: bool = False

    def logits(self, receiver: FrozenLM) -> Tensor:
        """(batch, rest of the prompt + n, vocab)."""
        logits: Tensor = receiver.model(**self._padded()).logits
        return logits

    def hidden(self, receiver: FrozenLM) -> Tensor:
        """Last hidden states, (batch, rest of the prompt + n, width)."""
        body = receiver.model.base_model
        if not self.is_packed:
            padded: Tensor = body(**self._padded()).last_hidden_state
            return padded
        inputs, run = self._padded(), self.prefix.num_tokens
        packing = Packing.of(inputs["attention_mask"][:, run:].bool())
        rows = Rows(packing.lengths, tuple(self.tokens.mask[:, :run].sum(1).tolist()))
        with row_by_row(receiver.model, rows):
            packed = body(
                input_ids=packing.pack(inputs["input_ids"]),
                position_ids=packing.pack(inputs["position_ids"]),
                past_key_values=self.prefix.packed_cache(packing, rows),
                use_cache=False,
            )
        return packing.unpack(packed.last_hidden_state)

    def summed_loss(self, receiver: FrozenLM, batch: TrainingBatch) -> Tensor:
        """Summed cross-entropy of the supervised tokens; the output head runs for these only.

        Args:
            receiver: the model that answers.
            batch: what comes after the last prompt token and after each of `ids`, and which of it counts.
        """
        columns = batch.response_ids.shape[1]
        wanted = batch.response_ids.flatten().index_select(0, batch.supervised)
        if receiver.head is not None:
            hidden = self.hidden(receiver)[:, -columns:].flatten(0, 1)
            return receiver.head.summed_loss(hidden.index_select(0, batch.supervised), wanted)
        inputs = self._padded()
        inputs["logits_to_keep"] = F.pad(batch.response_mask, (inputs["input_ids"].shape[1] - columns, 0))
        return summed_loss(receiver.model(**inputs).logits, wanted)

    def _padded(self) -> dict[str, Any]:
        """Arguments of one pass over all rows."""
        mask, run = self.mask.long(), self.prefix.num_tokens
        counted = positions_of(F.pad(mask, (1, 0), value=1))[:, 1:]
        return {
            "input_ids": torch.cat([self.tokens.input_ids[:, run:], self.ids], 1),
            "attention_mask": torch.cat([self.tokens.mask, mask], 1),
            "position_ids": torch.cat([self.tokens.positions[:, run:], self.tokens.positions[:, -1:] + counted], 1),
            "past_key_values": self.prefix.cache(),
            "use_cache": False,
        }

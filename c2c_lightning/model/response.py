"""The receiver over what follows the last fusion span: the rest of the prompt, then the response (paper, Eq. 4)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import TokenBatch, TrainingBatch, places_of, positions_of
from c2c_lightning.kv.cache import NewEntries, edited_prefix_cache, prefix_cache
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.kv.row_groups import row_groups
from c2c_lightning.model.frozen import FrozenLM
from c2c_lightning.model.head import summed_loss


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

    def cache(self, rows: Tensor, begin: int = 0) -> Cache:
        """A cache to be read, never written, of some rows and of the columns from `begin` on."""
        entries = [layer.tokens(begin).rows(rows) for layer in self.entries]
        return prefix_cache(entries) if self.edit is None else edited_prefix_cache(entries, self.edit(rows))


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
    """

    tokens: TokenBatch
    prefix: Prefix
    ids: Tensor
    mask: Tensor

    def logits(self, receiver: FrozenLM) -> Tensor:
        """(batch, rest of the prompt + n, vocab)."""
        rows = torch.arange(len(self.ids), device=self.ids.device)
        logits: Tensor = receiver.model(**self._inputs(rows, 0, self.ids.shape[1])).logits
        return logits

    def summed_loss(self, receiver: FrozenLM, batch: TrainingBatch) -> Tensor:
        """Summed cross-entropy of the supervised tokens; the output head runs for these only.

        Args:
            receiver: the model that answers.
            batch: what comes after the last prompt token and after each of `ids`, and which of it counts.
        """
        losses = []
        for group in self._groups(receiver, batch):
            inputs = self._inputs(group.rows, group.begin, group.length)
            columns = group.length + 1
            wanted = batch.response_ids.index_select(0, group.rows)[:, :columns].flatten().index_select(0, group.places)
            if receiver.head is not None:
                hidden = receiver.model.base_model(**inputs).last_hidden_state[:, -columns:]
                losses.append(receiver.head.summed_loss(hidden.flatten(0, 1).index_select(0, group.places), wanted))
            else:
                keep = batch.response_mask.index_select(0, group.rows)[:, :columns]
                inputs["logits_to_keep"] = F.pad(keep, (inputs["input_ids"].shape[1] - columns, 0))
                losses.append(summed_loss(receiver.model(**inputs).logits, wanted))
        return torch.stack(losses).sum()

    def _groups(self, receiver: FrozenLM, batch: TrainingBatch) -> Iterator["_Group"]:
        """Rows to run together.

        On a GPU, where padding is cheap and a look at the lengths is a wait, all rows run together.
        """
        device, longest = self.ids.device, self.ids.shape[1]
        every = torch.arange(len(self.ids), device=device)
        if device.type != "cpu" or receiver.is_sharded:
            yield _Group(every, 0, longest, batch.supervised)
            return
        # Up to the last token that is predicted, without itself; tokens before it that do not count are run too.
        lengths = (batch.response_mask * torch.arange(longest + 1)).amax(1).tolist()
        rest = self.tokens.input_ids.shape[1] - self.prefix.num_tokens
        first = self.tokens.mask.long().argmax(1)
        for numbers in row_groups([rest + length for length in lengths]):
            rows, length = every[torch.tensor(numbers)], max(lengths[row] for row in numbers)
            # The columns that run are never cut: what edits them counts from the first.
            begin = min(int(first[rows].min()), self.prefix.num_tokens)
            yield _Group(rows, begin, length, places_of(batch.response_mask[rows, : length + 1]))

    def _inputs(self, rows: Tensor, begin: int, length: int) -> dict[str, Any]:
        """Arguments of a pass over some rows, with prompt columns from `begin` on and `length` response tokens."""
        ids, mask = self.ids.index_select(0, rows)[:, :length], self.mask.index_select(0, rows)[:, :length].long()
        prompt_ids, prompt_mask, positions = (
            part.index_select(0, rows) for part in (self.tokens.input_ids, self.tokens.mask, self.tokens.positions)
        )
        run = self.prefix.num_tokens
        counted = positions_of(torch.cat([torch.ones_like(prompt_mask[:, :1]), mask], 1))[:, 1:]
        return {
            "input_ids": torch.cat([prompt_ids[:, run:], ids], 1),
            "attention_mask": torch.cat([prompt_mask[:, begin:], mask], 1),
            "position_ids": torch.cat([positions[:, run:], positions[:, -1:] + counted], 1),
            "past_key_values": self.prefix.cache(rows, begin),
            "use_cache": False,
        }


@dataclass(frozen=True)
class _Group:
    """Rows that run together.

    Attributes:
        rows: their numbers.
        begin: the first prompt column that one of them needs.
        length: response tokens to run.
        places: the supervised tokens in their flattened (rows, length + 1).
    """

    rows: Tensor
    begin: int
    length: int
    places: Tensor

"""The receiver over what follows the last fusion span: the rest of the prompt, then the response (paper, Eq. 4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.data.batch import TokenBatch, positions_of
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

    def cache(self, rows: Tensor, begin: int = 0) -> Cache:
        """A cache to be read, never written, of some rows and of the columns from `begin` on."""
        entries = [layer.tokens(begin).rows(rows) for layer in self.entries]
        return prefix_cache(entries) if self.edit is None else edited_prefix_cache(entries, self.edit(rows))


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

    def summed_loss(self, receiver: FrozenLM, targets: Tensor, supervised: Tensor) -> Tensor:
        """Summed cross-entropy of supervised tokens; the output head runs for these only.

        Args:
            receiver: the model that answers.
            targets: (batch, n + 1), the tokens after the last prompt token and after each of `ids`.
            supervised: (batch, n + 1), which of them count.
        """
        losses = []
        for rows, begin, length in self._groups(receiver, supervised):
            inputs = self._inputs(rows, begin, length)
            keep, wanted = supervised.index_select(0, rows)[:, : length + 1], targets.index_select(0, rows)
            wanted = wanted[:, : length + 1][keep]
            if receiver.head is not None:
                hidden = receiver.model.base_model(**inputs).last_hidden_state[:, -1 - length :]
                losses.append(receiver.head.summed_loss(hidden[keep], wanted))
            else:
                width = inputs["input_ids"].shape[1]
                inputs["logits_to_keep"] = F.pad(keep, (width - length - 1, 0))
                losses.append(summed_loss(receiver.model(**inputs).logits, wanted))
        return torch.stack(losses).sum()

    def _groups(self, receiver: FrozenLM, supervised: Tensor) -> list[tuple[Tensor, int, int]]:
        """Rows to run together: their numbers, the first prompt column that one of them needs, response tokens to run.

        On a GPU, where padding is cheap and a look at the lengths is a wait, all rows run together.
        """
        device, longest = self.ids.device, self.ids.shape[1]
        every = torch.arange(len(self.ids), device=device)
        if device.type != "cpu" or receiver.is_sharded:
            return [(every, 0, longest)]
        # Up to the last token that is predicted, without itself; tokens before it that do not count are run too.
        lengths = (supervised * torch.arange(longest + 1)).amax(1).tolist()
        rest = self.tokens.input_ids.shape[1] - self.prefix.num_tokens
        first = self.tokens.mask.long().argmax(1)
        groups = []
        for rows in row_groups([rest + length for length in lengths]):
            index = every[torch.tensor(rows)]
            # The columns that run are never cut: what edits them counts from the first.
            begin = min(int(first[index].min()), self.prefix.num_tokens)
            groups.append((index, begin, max(lengths[row] for row in rows)))
        return groups

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

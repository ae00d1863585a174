"""Text that all rows of a training begin with, such as worked examples: its entries are computed once for all rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.shared_prefix import continue_shared_prefix, shared_prefix_length
from c2c_lightning.training.frozen_cache.row_tokens import RowTokens, as_batch


@dataclass(frozen=True)
class CommonPrefix:
    """The first tokens of most rows.

    It is chosen once, from a sample of the data, so that the entries of a row depend on no other row of its batch; on a
    CPU in float32 not even in their last bits.

    Attributes:
        lm: the model.
        inputs: (3, tokens): ids, attention mask and position ids.
        num_layers: number of layers that are needed, from the first.
    """

    lm: FrozenLM
    inputs: Int[Tensor, "3 tokens"]
    num_layers: int

    @classmethod
    def of(cls, lm: FrozenLM, rows: Sequence[RowTokens], num_layers: int) -> Self | None:
        """The tokens that all rows begin with; None for too few to be worth it, or where a second pass is not exact."""
        tokens = as_batch(rows)
        length = shared_prefix_length(lm, tokens, tokens.input_ids.shape[1])
        first = rows[0].inputs[:, :length]
        is_plain = bool((first[1] == 1).all()) and torch.equal(first[2], torch.arange(length))
        return cls(lm, first, num_layers) if length and is_plain else None

    @cached_property
    def _kv(self) -> LayerStack:
        return self.lm.prefill(self.inputs[:1], None, self.inputs[2:], None, self.num_layers)

    def begins(self, row: RowTokens) -> bool:
        """Whether a row without padding begins with these tokens and is longer."""
        length = self.inputs.shape[1]
        return len(row) > length and torch.equal(row.inputs[:, :length], self.inputs) and bool(row.inputs[1].all())

    def caches(self, rows: Sequence[RowTokens]) -> list[LayerStack]:
        """The whole cache of each row, (1, heads, tokens of the row, width)."""
        # On GPUs rows one by one would wait for kernels; in half precision rounding depends on the batch in any case.
        if self.lm.device.type == "cpu" and self.lm.model.dtype == torch.float32:
            return [self._continued([row]) for row in rows]
        together = self._continued(rows)
        width = together[0].num_tokens
        return [
            [layer.rows(torch.tensor([n], device=layer.keys.device)).tokens(width - len(row)) for layer in together]
            for n, row in enumerate(rows)
        ]

    def _continued(self, rows: Sequence[RowTokens]) -> LayerStack:
        tokens = as_batch(rows)
        return continue_shared_prefix(self.lm, tokens, tokens.input_ids.shape[1], self._kv, self.num_layers)

"""The tokens of a batch's single rows, without the padding around them: they determine a frozen model's entries."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.data.token_batch import TokenBatch


@dataclass(frozen=True)
class RowTokens:
    """The first tokens of one prompt.

    Attributes:
        inputs: (3, tokens): ids, attention mask and position ids; the first and the last token are real ones.
        first: column of the first token in the batch that they come from.
    """

    inputs: Int[Tensor, "3 tokens"]
    first: int

    def __len__(self) -> int:
        """Number of tokens."""
        return self.inputs.shape[1]

    @cached_property
    def key(self) -> str:
        """Digest of the tokens: 32 hexadecimal digits. Equal tokens have equal entries, wherever they occur."""
        return hashlib.blake2b(self.inputs.int().contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def rows_until(tokens: TokenBatch, ends: Sequence[int]) -> list[RowTokens]:
    """The tokens of each row up to its own end.

    Args:
        tokens: a batch, (batch, columns).
        ends: for each row the column after its last token that is needed.
    """
    host = tokens.on_host
    inputs = torch.stack([host.input_ids, host.mask, host.positions], 1)  # (batch, 3, columns)
    return [_row(row[:, :end]) for row, end in zip(inputs, ends, strict=True)]


def _row(inputs: Tensor) -> RowTokens:
    real = inputs[1].nonzero()[:, 0]
    if not len(real):
        return RowTokens(inputs[:, :0], inputs.shape[1])
    first = int(real[0])
    return RowTokens(inputs[:, first : int(real[-1]) + 1], first)


def as_batch(rows: Sequence[RowTokens]) -> TokenBatch:
    """Rows as one left-padded batch."""
    width = max(map(len, rows))
    padded = torch.zeros(len(rows), 3, width, dtype=torch.long)
    for row, target in zip(rows, padded, strict=True):
        target[:, width - len(row) :] = row.inputs
    return TokenBatch(padded[:, 0], padded[:, 1], padded[:, 2])

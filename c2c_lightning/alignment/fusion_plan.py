"""The packed tokens of a batch that a sharer is fused into, span by span."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class FusedTokens:
    """The tokens that one sharer is fused into, packed over the batch.

    Attributes:
        row: (fused,), the prompt.
        token: (fused,), the receiver's token.
        source: (fused,), the sharer's token that it reads.
    """

    row: Int[Tensor, " fused"]
    token: Int[Tensor, " fused"]
    source: Int[Tensor, " fused"]

    @classmethod
    def every(cls, batch: int, tokens: int, device: torch.device) -> "FusedTokens":
        """Every token of a batch, each reading the token at its own place."""
        row = torch.arange(batch, device=device).repeat_interleave(tokens)
        token = torch.arange(tokens, device=device).repeat(batch)
        return cls(row, token, token)

    def __len__(self) -> int:
        """How many tokens are fused."""
        return len(self.row)

    @classmethod
    def join(cls, reads: Sequence["FusedTokens"]) -> "FusedTokens":
        """Several reads as one."""
        return cls(*(torch.cat([getattr(read, part) for read in reads]) for part in ("row", "token", "source")))

    def where(self, keep: Tensor) -> "FusedTokens":
        """Some of the fused tokens; `keep` is (fused,)."""
        return FusedTokens(self.row[keep], self.token[keep], self.source[keep])

    def place_in_row(self, batch: int) -> Tensor:
        """How many tokens each fused token is after its row's first one, (fused,).

        Args:
            batch: number of rows.
        """
        first = self.token.new_zeros(batch).scatter_reduce(0, self.row, self.token, "amin", include_self=False)
        return self.token - first[self.row]

    def to(self, device: torch.device | str) -> "FusedTokens":
        """The same indices on another device."""
        return FusedTokens(*(index.to(device, non_blocking=True) for index in (self.row, self.token, self.source)))


@dataclass(frozen=True)
class FusionStep:
    """The spans that end at one column: what is fused before the receiver goes on.

    Attributes:
        begin: first receiver column of these spans.
        end: the receiver column after them.
        reads: for each sharer the tokens that are fused.
    """

    begin: int
    end: int
    reads: tuple[FusedTokens, ...]

    @classmethod
    def of(cls, end: int, reads: Sequence[FusedTokens]) -> "FusionStep":
        """The round of some reads; it begins with the first token that is fused."""
        return cls(min((int(read.token.min()) for read in reads if len(read)), default=end), end, tuple(reads))

    def split(self, column: int) -> "tuple[FusionStep, FusionStep]":
        """What is fused before a column, and what from there on."""
        before = [read.where(read.token < column) for read in self.reads]
        rest = [read.where(read.token >= column) for read in self.reads]
        return FusionStep.of(self.end, before), FusionStep.of(self.end, rest)

    def to(self, device: torch.device | str) -> "FusionStep":
        """The same round with its indices on another device."""
        return FusionStep(self.begin, self.end, tuple(read.to(device) for read in self.reads))


def span_ends(reads: Tensor, real: Tensor) -> Tensor:
    """For each token the column after its span, (batch, tokens).

    Args:
        reads: (batch, tokens, sharers), which sharers each token reads.
        real: (batch, tokens), False for padding.
    """
    batch, tokens = real.shape
    column = torch.arange(tokens, device=real.device).expand(batch, tokens)
    # The state of padding is that of the last real token before it.
    last_real = torch.where(real, column, 0).cummax(-1).values
    state = reads.gather(1, last_real[..., None].expand_as(reads))
    changes = torch.ones(batch, tokens, dtype=torch.bool, device=real.device)
    changes[:, :-1] = (state[:, 1:] != state[:, :-1]).any(-1)
    # The nearest change at or after each column, looked up from the right.
    end = torch.where(changes, column + 1, tokens)
    return end.flip(-1).cummin(-1).values.flip(-1)


def keep_fraction(index: Tensor, share: float, side: str) -> Tensor:
    """A source index, (batch, tokens), with a part of its entries left."""
    reads = index >= 0
    count = reads.sum(1, keepdim=True)
    kept = (count * share).round()
    rank = reads.cumsum(1)  # 1 for a row's first fused token
    is_kept = rank <= kept if side == "former" else rank > count - kept
    return index.masked_fill(~is_kept, -1)

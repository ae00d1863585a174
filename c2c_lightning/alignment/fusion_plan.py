"""The fusion plan of a batch: which receiver tokens are fused with which sharer tokens, step by step.

Axes: B batch, T receiver tokens, S sharers, F fused tokens of a batch, packed into one axis without padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenPositions:
    """Position ids in each model.

    Attributes:
        receiver: (B, T), those of the receiver's tokens.
        sharers: for each sharer (B, its tokens).
    """

    receiver: Int[Tensor, "batch tokens"]
    sharers: tuple[Int[Tensor, "batch _"], ...]

    def rows(self, index: Int[Tensor, " rows"]) -> "TokenPositions":
        """The positions in some rows of the batch."""
        return TokenPositions(*(self.receiver[index], tuple(sharer[index] for sharer in self.sharers)))


@dataclass(frozen=True)
class FusedTokens:
    """The receiver tokens that are fused with one sharer, packed over the batch in the order of rows and columns.

    Attributes:
        row: (F,), row in the batch.
        token: (F,), column of the receiver token.
        source: (F,), column of the sharer token that it is fused with.
        position: (F,), position id of the receiver token; None where no fuser kind may need it.
        source_position: (F,), position id of the sharer token.
    """

    row: Int[Tensor, " fused"]
    token: Int[Tensor, " fused"]
    source: Int[Tensor, " fused"]
    position: Int[Tensor, " fused"] | None = None
    source_position: Int[Tensor, " fused"] | None = None

    @classmethod
    def all_tokens(
        cls, batch: int, tokens: int, device: torch.device, positions: tuple[Tensor, Tensor] | None = None
    ) -> "FusedTokens":
        """Every token of a batch, fused with the sharer token of the same column.

        Args:
            batch: rows B.
            tokens: columns T.
            device: of the indices.
            positions: position ids of the receiver's and of the sharer's tokens, (B, T) each.
        """
        row = torch.arange(batch, device=device).repeat_interleave(tokens)
        token = torch.arange(tokens, device=device).repeat(batch)
        fused = cls(row, token, token)
        if positions is None:
            return fused
        return replace(fused, position=positions[0].flatten(), source_position=positions[1].flatten())

    def __len__(self) -> int:
        """Number of fused tokens."""
        return len(self.row)

    @classmethod
    def join(cls, parts: Sequence["FusedTokens"]) -> "FusedTokens":
        """The tokens of all parts, in the order of rows and columns."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        joined = cls(**{name: torch.cat(column) for name, column in columns.items() if column[0] is not None})
        if not len(joined):
            return joined
        order = torch.argsort(joined.row * (int(joined.token.max()) + 1) + joined.token)
        return joined._map(lambda tensor: tensor[order])

    def where(self, keep: Bool[Tensor, " fused"]) -> Self:
        """The fused tokens for which `keep` holds."""
        return self._map(lambda tensor: tensor[keep])

    def offset_in_row(self, batch: int) -> Tensor:
        """Distance in columns of each fused token from the first fused token of its row, (F,)."""
        # Without `include_self`: the zeros of the new tensor are not columns.
        first = self.token.new_zeros(batch).scatter_reduce(0, self.row, self.token, "amin", include_self=False)
        return self.token - first[self.row]

    def to(self, device: torch.device | str) -> Self:
        """Copy to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


@dataclass(frozen=True)
class FusionStep:
    """One step of the loop of Eq. 3: the receiver is prefilled up to `end`, then all spans that end there are fused.

    Attributes:
        begin: column of the first fused token.
        end: column after the last token of these spans.
        fused_tokens: one entry per sharer.
        unfused_end: column after the last token before `end` that is not fused with any sharer, in any row; None if it
            is not known.
    """

    begin: int
    end: int
    fused_tokens: tuple[FusedTokens, ...]
    unfused_end: int | None = None

    @classmethod
    def of(cls, end: int, fused_tokens: Sequence[FusedTokens], unfused_end: int | None = None) -> "FusionStep":
        """A step that begins at its first fused token."""
        begin = min((int(fused.token.min()) for fused in fused_tokens if len(fused)), default=end)
        return cls(begin, end, tuple(fused_tokens), unfused_end)

    def split(self, column: int) -> "tuple[FusionStep, FusionStep]":
        """The fused tokens before a column and those from it on, as two steps."""
        before = [fused.where(fused.token < column) for fused in self.fused_tokens]
        rest = [fused.where(fused.token >= column) for fused in self.fused_tokens]
        return FusionStep.of(self.end, before), FusionStep.of(self.end, rest)

    def to(self, device: torch.device | str) -> "FusionStep":
        """Copy to a device."""
        return replace(self, fused_tokens=tuple(fused.to(device) for fused in self.fused_tokens))


@dataclass(frozen=True)
class FusionPlan:
    """The fusion steps of a batch of prompts.

    Computed where the batch is collated, because its sizes depend on the data: on a GPU they would be a host sync.

    Attributes:
        steps: span by span, in the order of their last columns (`span_order: sectioned`).
        one_pass: all spans of a row in one step (`span_order: one_pass`); a step holds the rows that end at one column.
        num_read_tokens: for each sharer, the number of its leading columns that are fused; the rest need no prefill.
    """

    steps: tuple[FusionStep, ...] = ()
    one_pass: tuple[FusionStep, ...] = ()
    num_read_tokens: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, source_indices: Sequence[Tensor], mask: Tensor, positions: TokenPositions | None = None
    ) -> "FusionPlan":
        """The plan of a batch.

        A span is a run of tokens that are fused with the same sharers. Padding continues the span before it, so the
        spans of a row are the same alone and in a padded batch. The last prompt token is never fused: it is computed
        on the fused cache.

        Args:
            source_indices: for each sharer (batch, tokens), the sharer column of each receiver token, or -1.
            mask: (batch, tokens), the receiver's attention mask.
            positions: position ids of all receiver tokens, and of all tokens of each sharer.
        """
        if not source_indices:
            return cls()
        real = mask[:, :-1].bool()
        is_fused = torch.stack([index[:, :-1] >= 0 for index in source_indices], -1) & real[..., None]
        span_end = span_ends(is_fused, real)
        ends = sorted(set(span_end[is_fused.any(-1)].tolist()))
        is_unfused = (real & ~is_fused.any(-1)).any(0)
        steps = tuple(
            _step(end, is_fused & (span_end == end)[..., None], is_unfused, source_indices, positions) for end in ends
        )
        return cls(steps, _in_one_pass(steps, len(mask)), _num_read_tokens(steps, len(source_indices)))

    def to(self, device: torch.device | str) -> "FusionPlan":
        """The same plan with its indices on another device."""
        steps, one_pass = (tuple(step.to(device) for step in steps) for steps in (self.steps, self.one_pass))
        return FusionPlan(steps, one_pass, self.num_read_tokens)


def _step(
    end: int, is_fused: Tensor, is_unfused: Tensor, source_indices: Sequence[Tensor], positions: TokenPositions | None
) -> FusionStep:
    """The step of the spans that end at one column.

    Args:
        end: the column.
        is_fused: (batch, tokens, sharers), the tokens of these spans.
        is_unfused: (tokens,), whether any row has a token there that is fused in no step.
        source_indices: see `FusionPlan.of`.
        positions: see `FusionPlan.of`.
    """
    fused = []
    for number, index in enumerate(source_indices):
        row, token = is_fused[..., number].nonzero(as_tuple=True)
        source = index[row, token]
        ids = () if positions is None else (positions.receiver[row, token], positions.sharers[number][row, source])
        fused.append(FusedTokens(row, token, source, *ids))
    unfused = is_unfused[:end].nonzero()
    return FusionStep.of(end, fused, int(unfused.max()) + 1 if len(unfused) else 0)


def _in_one_pass(steps: tuple[FusionStep, ...], batch: int) -> tuple[FusionStep, ...]:
    if len(steps) < 2:
        return steps
    row_end = steps[0].fused_tokens[0].row.new_zeros(batch)
    for step in steps:
        for fused in step.fused_tokens:
            row_end[fused.row] = step.end
    joined = [FusedTokens.join(of_sharer) for of_sharer in zip(*(step.fused_tokens for step in steps), strict=True)]
    # 0 is a row without fused tokens.
    ends = sorted(set(row_end.tolist()) - {0})
    return tuple(FusionStep.of(end, [fused.where(row_end[fused.row] == end) for fused in joined]) for end in ends)


def _num_read_tokens(steps: tuple[FusionStep, ...], num_sharers: int) -> tuple[int, ...]:
    counts = [0] * num_sharers
    for step in steps:
        for number, fused in enumerate(step.fused_tokens):
            counts[number] = max(counts[number], int(fused.source.max()) + 1 if len(fused) else 0)
    return tuple(counts)


def span_ends(is_fused: Bool[Tensor, "batch tokens sharers"], is_real: Bool[Tensor, "batch tokens"]) -> Tensor:
    """Column after the fusion span of each token, (B, T).

    A span is a run of tokens that are fused with the same set of sharers. Padding continues the span before it.

    Args:
        is_fused: whether a token is fused with a sharer.
        is_real: False for padding.
    """
    batch, tokens = is_real.shape
    column = torch.arange(tokens, device=is_real.device).expand(batch, tokens)
    # Padding gets the sharers of the real token before it, so that it ends no span.
    last_real = torch.where(is_real, column, 0).cummax(-1).values
    sharer_set = is_fused.gather(1, last_real[..., None].expand_as(is_fused))
    is_last = torch.ones(batch, tokens, dtype=torch.bool, device=is_real.device)
    is_last[:, :-1] = (sharer_set[:, 1:] != sharer_set[:, :-1]).any(-1)
    # The nearest last token of a span at or after each column: a cumulative minimum from the right.
    end = torch.where(is_last, column + 1, tokens)
    return end.flip(-1).cummin(-1).values.flip(-1)


def keep_fraction(source_index: Int[Tensor, "batch tokens"], fraction: float, side: str) -> Tensor:
    """A source index with only a fraction of each row's fused tokens left (paper, Fig. 11).

    Args:
        source_index: sharer column of each receiver token, -1 where it is not fused.
        fraction: 0 to 1.
        side: `former` keeps the first fused tokens of a row, `latter` the last ones.

    Example:
        >>> keep_fraction(torch.tensor([[-1, 0, 1, 2, 3]]), 0.5, "former").tolist()
        [[-1, 0, 1, -1, -1]]
    """
    is_fused = source_index >= 0
    count = is_fused.sum(1, keepdim=True)
    kept = (count * fraction).round()
    rank = is_fused.cumsum(1)  # 1 for a row's first fused token
    is_kept = rank <= kept if side == "former" else rank > count - kept
    return source_index.masked_fill(~is_kept, -1)

"""Who reads what: the one structure between conversations and models.

A prompt is the receiver's tokens, each sharer's tokens, and for each receiver token the position in each sharer's
tokens that it reads. Every alignment, several sharers, private context and padding are said with these alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep, keep_fraction, span_ends
from c2c_lightning.errors import PromptError


def positions_of(attention_mask: Tensor) -> Tensor:
    """Position ids that count unpadded tokens, (batch, tokens); 0 on padding in front of the first token."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


@dataclass(frozen=True)
class TokenBatch:
    """One model's tokens.

    Attributes:
        input_ids: (batch, tokens), left padded.
        attention_mask: (batch, tokens), 1 for a real token; default all real.
        position_ids: (batch, tokens); default the count of unpadded tokens before each.
    """

    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None
    position_ids: Int[Tensor, "batch tokens"] | None = None

    def __post_init__(self) -> None:
        """Fill in what was left out and check shapes."""
        ids = self.input_ids
        if ids.ndim != 2:
            raise PromptError(f"input_ids must be (batch, tokens), but its shape is {tuple(ids.shape)}.")
        mask = torch.ones_like(ids) if self.attention_mask is None else self.attention_mask.long()
        positions = positions_of(mask) if self.position_ids is None else self.position_ids
        for name, value in (("attention_mask", mask), ("position_ids", positions)):
            if value.shape != ids.shape:
                raise PromptError(f"{name} has shape {tuple(value.shape)}, but input_ids has {tuple(ids.shape)}.")
        object.__setattr__(self, "attention_mask", mask)
        object.__setattr__(self, "position_ids", positions)

    @property
    def mask(self) -> Tensor:
        """The attention mask, which is always there after construction."""
        assert self.attention_mask is not None
        return self.attention_mask

    @property
    def positions(self) -> Tensor:
        """The position ids, which are always there after construction."""
        assert self.position_ids is not None
        return self.position_ids

    def to(self, device: torch.device | str) -> Self:
        """The same tokens on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.mask.to(device, non_blocking=True),
            position_ids=self.positions.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class SharerTokens(TokenBatch):
    """A sharer's tokens and which of them each receiver token reads.

    Attributes:
        source_index: (batch, receiver tokens): the position in this sharer's tokens that each receiver token reads,
            -1 where the receiver token is not fused. Default: nothing is fused.
    """

    source_index: Int[Tensor, "batch receiver_tokens"] | None = None

    @property
    def index(self) -> Tensor:
        """The source index; `PromptBatch` fills in its default."""
        assert self.source_index is not None
        return self.source_index

    def to(self, device: torch.device | str) -> Self:
        """The same tokens on another device."""
        moved = super().to(device)
        if self.source_index is None:
            return moved
        return replace(moved, source_index=self.source_index.to(device, non_blocking=True))


@dataclass(frozen=True)
class PromptBatch:
    """A batch of prompts, left padded.

    Attributes:
        receiver: the receiver's tokens.
        sharers: each sharer's own tokens.
    """

    receiver: TokenBatch
    sharers: tuple[SharerTokens, ...]

    def __post_init__(self) -> None:
        """Fill in missing source indices and check that all parts belong together."""
        mask = self.receiver.mask
        if mask.device.type == "cpu" and mask.numel() and not bool(mask[:, -1].all()):
            raise PromptError("the last token of a prompt is padding: prompts must be padded on the left.")
        object.__setattr__(self, "sharers", tuple(self._checked(n, s) for n, s in enumerate(self.sharers)))

    def _checked(self, number: int, sharer: SharerTokens) -> SharerTokens:
        ids = self.receiver.input_ids
        if sharer.source_index is None:
            sharer = replace(sharer, source_index=torch.full_like(ids, -1))
        if sharer.index.shape != ids.shape:
            raise PromptError(
                f"source_index of sharer {number} has shape {tuple(sharer.index.shape)}, but the receiver's tokens "
                f"have {tuple(ids.shape)}. It needs one entry per receiver token, -1 where nothing is read."
            )
        if sharer.input_ids.shape[0] != len(ids):
            raise PromptError(f"sharer {number} has {sharer.input_ids.shape[0]} rows, the receiver has {len(ids)}.")
        is_checked = sharer.index.device.type == "cpu" and sharer.index.numel()  # elsewhere a look would make us wait
        if is_checked and int(sharer.index.max()) >= sharer.input_ids.shape[1]:
            raise PromptError(
                f"source_index of sharer {number} points at position {int(sharer.index.max())}, but that sharer has "
                f"only {sharer.input_ids.shape[1]} tokens."
            )
        return sharer

    @classmethod
    def shared(cls, input_ids: Tensor, attention_mask: Tensor | None = None, num_sharers: int = 1) -> "PromptBatch":
        """The same tokens for receiver and sharers; every token but the last is fused.

        Args:
            input_ids: (batch, tokens), left padded.
            attention_mask: (batch, tokens), 1 for a real token.
            num_sharers: how many sharers read them.

        Returns:
            A batch in which receiver token i reads each sharer's token i.
        """
        receiver = TokenBatch(input_ids, attention_mask)
        index = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        index = index.masked_fill(receiver.mask == 0, -1)
        index[:, -1:] = -1
        sharer = SharerTokens(input_ids, receiver.mask, receiver.positions, index)
        return cls(receiver, (sharer,) * num_sharers)

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.receiver.input_ids)

    @property
    def num_receiver_tokens(self) -> int:
        """Columns of the receiver's tokens, padding included."""
        return self.receiver.input_ids.shape[1]

    def to(self, device: torch.device | str) -> "PromptBatch":
        """The same batch on another device, its fusion plan made before the move."""
        if self.receiver.input_ids.device == torch.device(device):
            return self
        moved = PromptBatch(self.receiver.to(device), tuple(s.to(device) for s in self.sharers))
        moved.__dict__["num_read_tokens"] = self.num_read_tokens
        moved.__dict__["fusion_rounds"] = tuple(r.to(device) for r in self.fusion_rounds)
        moved.__dict__["whole_round"] = tuple(r.to(device) for r in self.whole_round)
        return moved

    def select(self, rows: Sequence[int] | Tensor) -> "PromptBatch":
        """The prompts of some rows."""
        pick = torch.as_tensor(rows, device=self.receiver.input_ids.device)
        receiver = TokenBatch(self.receiver.input_ids[pick], self.receiver.mask[pick], self.receiver.positions[pick])
        sharers = (
            SharerTokens(s.input_ids[pick], s.mask[pick], s.positions[pick], s.index[pick]) for s in self.sharers
        )
        return PromptBatch(receiver, tuple(sharers))

    def with_share(self, share: float, side: Literal["former", "latter"]) -> "PromptBatch":
        """The same prompts with only a part of each row's fused tokens fused (paper, Fig. 11).

        Args:
            share: how much of them, 0 to 1.
            side: `former` keeps the front of each row's fused tokens, `latter` the back.
        """
        if not 0 <= share <= 1:
            raise PromptError(f"the share of the prompt that is fused is {share}, but must lie in [0, 1].")
        sharers = tuple(replace(s, source_index=keep_fraction(s.index, share, side)) for s in self.sharers)
        return PromptBatch(self.receiver, sharers)

    def without(self, columns: Sequence[int]) -> "PromptBatch":
        """The same prompts with the receiver's tokens in some columns not fused: a span ends before each of them."""
        kept = torch.ones_like(self.receiver.input_ids, dtype=torch.bool)
        kept[:, list(columns)] = False
        return PromptBatch(
            self.receiver, tuple(replace(s, source_index=s.index.masked_fill(~kept, -1)) for s in self.sharers)
        )

    @cached_property
    def fusion_rounds(self) -> tuple[FusionStep, ...]:
        """The fused tokens, span by span; made once, where the batch is made, so that a training step never waits.

        A span is a run of tokens that read the same sharers. Padding belongs to the span before it, so a row's spans
        are the same alone and in a padded batch. All spans that end at one column are one round. The last prompt
        token is no part of it: it is computed on the fused cache.
        """
        if not self.sharers:
            return ()
        reads = torch.stack([s.index >= 0 for s in self.sharers], -1) & self.receiver.mask.bool()[..., None]
        reads = reads[:, :-1]  # (batch, tokens - 1, sharers)
        span_end = span_ends(reads, self.receiver.mask[:, :-1].bool())
        ends = sorted(set(span_end[reads.any(-1)].tolist()))
        return tuple(self._round(end, reads & (span_end == end)[..., None]) for end in ends)

    def _round(self, end: int, reads: Tensor) -> FusionStep:
        picks = []
        for number, sharer in enumerate(self.sharers):
            row, token = reads[..., number].nonzero(as_tuple=True)
            picks.append(FusedTokens(row, token, sharer.index[row, token]))
        return FusionStep.of(end, picks)

    @cached_property
    def num_read_tokens(self) -> tuple[int, ...]:
        """For each sharer how many of its columns are read, counted from the first: later ones need not run."""
        return tuple(
            max(
                (int(r.fused_tokens[n].source.max()) + 1 for r in self.fusion_rounds if len(r.fused_tokens[n])),
                default=0,
            )
            for n in range(len(self.sharers))
        )

    @cached_property
    def whole_round(self) -> tuple[FusionStep, ...]:
        """All spans of a row at once, for fusing them from one clean prefill; a round holds the rows that end alike."""
        rounds = self.fusion_rounds
        if len(rounds) < 2:
            return rounds
        row_end = self.receiver.input_ids.new_zeros(len(self))
        for fusion in rounds:
            for read in fusion.fused_tokens:
                row_end[read.row] = fusion.end
        reads = [FusedTokens.join([fusion.fused_tokens[n] for fusion in rounds]) for n in range(len(self.sharers))]
        ends = sorted(set(row_end.tolist()) - {0})
        return tuple(FusionStep.of(end, [read.where(row_end[read.row] == end) for read in reads]) for end in ends)


class TrainingBatch:
    """Prompts with the responses that the loss is computed on.

    No dataclass: Lightning's half precision would take a frozen one apart and fail to put it together again.

    Attributes:
        prompt: the prompts.
        response_ids: (batch, response), right padded.
        response_mask: (batch, response), True where a token is supervised.
    """

    def __init__(
        self,
        prompt: PromptBatch,
        response_ids: Int[Tensor, "batch response"],
        response_mask: Bool[Tensor, "batch response"],
    ) -> None:
        """Take the parts."""
        self.prompt, self.response_ids, self.response_mask = prompt, response_ids, response_mask

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.response_ids)

    @cached_property
    def supervised(self) -> Tensor:
        """Places of the supervised tokens in the flattened (batch, response).

        How many there are is known where the batch is made; on a GPU the question would be a wait.
        """
        return places_of(self.response_mask)

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same batch on another device, what a step would have to wait for made before the move."""
        if self.response_ids.device == torch.device(device):
            return self
        prompt, ids, mask = self.prompt.to(device), self.response_ids.to(device), self.response_mask.to(device)
        moved = TrainingBatch(prompt, ids, mask)
        moved.__dict__["supervised"] = self.supervised.to(device, non_blocking=True)
        return moved


def places_of(mask: Tensor) -> Tensor:
    """Where a mask holds, in its flattened form."""
    return mask.flatten().nonzero()[:, 0]

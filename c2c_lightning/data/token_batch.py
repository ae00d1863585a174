"""Token ids, attention masks and position ids of one model, and the map from receiver tokens to sharer tokens."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from c2c_lightning.errors import PromptError


def positions_of(attention_mask: Tensor) -> Tensor:
    """Position ids that count unpadded tokens, (batch, tokens); 0 on padding in front of the first token."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of one model.

    Attributes:
        input_ids: (batch, tokens), left padded.
        attention_mask: (batch, tokens), 1 for a real token; default all 1.
        position_ids: (batch, tokens); default the count of unpadded tokens before each.
    """

    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None
    position_ids: Int[Tensor, "batch tokens"] | None = None

    def __post_init__(self) -> None:
        """Fill in the defaults and check shapes."""
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
        """The attention mask, never None."""
        assert self.attention_mask is not None
        return self.attention_mask

    @property
    def positions(self) -> Tensor:
        """The position ids, never None."""
        assert self.position_ids is not None
        return self.position_ids

    def rows(self, index: Int[Tensor, " rows"]) -> Self:
        """The tokens of some rows, in any order and number."""
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Self:
        """The same tokens on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})

    def append(
        self,
        input_ids: Int[Tensor, "batch new"],
        attention_mask: Int[Tensor, "batch new"] | Bool[Tensor, "batch new"] | None = None,
    ) -> "TokenBatch":
        """These tokens followed by others, (batch, tokens + new), whose positions continue the count.

        Args:
            input_ids: (batch, new), right padded.
            attention_mask: (batch, new), 1 for a real token; default all 1.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        positions = self.positions[:, -1:] + mask.cumsum(1)
        return TokenBatch(
            torch.cat([self.input_ids, input_ids], 1),
            torch.cat([self.mask, mask], 1),
            torch.cat([self.positions, positions], 1),
        )


@dataclass(frozen=True)
class SharerTokens(TokenBatch):
    """The tokens of one sharer, and the one that each receiver token reads.

    Attributes:
        source_index: (batch, receiver tokens): the position in this sharer's tokens that each receiver token reads,
            -1 where the receiver token is not fused. Default: nothing is fused.
    """

    source_index: Int[Tensor, "batch receiver_tokens"] | None = None

    @property
    def index(self) -> Tensor:
        """The source index, never None within a `PromptBatch`."""
        assert self.source_index is not None
        return self.source_index

"""Token ids, attention masks and position ids of one model, and the map from receiver tokens to sharer tokens."""

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, fields, replace
from typing import Any, Self

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

    A batch that is moved to another device keeps its copy on the host, so that lengths, padding and fusion plans are
    known there: on a GPU, reading them from the device would make the host wait for it.

    Attributes:
        input_ids: (batch, tokens), left padded.
        attention_mask: (batch, tokens), 1 for a real token; default all 1.
        position_ids: (batch, tokens); default the count of unpadded tokens before each.
        host_copy: the same tokens on the CPU, if these are on another device.
    """

    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"] | None = None
    position_ids: Int[Tensor, "batch tokens"] | None = None
    # Not a field: `dataclasses.replace` must not keep the copy of the tokens as they were.
    host_copy: InitVar["TokenBatch | None"] = field(default=None, kw_only=True)
    _host: "TokenBatch | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self, host_copy: "TokenBatch | None") -> None:
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
        object.__setattr__(self, "_host", host_copy)

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

    @property
    def on_host(self) -> Self:
        """The same tokens on the CPU: the copy that they were moved from, else one that is read back once."""
        if self.input_ids.device.type == "cpu":
            return self
        if self._host is None:
            object.__setattr__(self, "_host", self._map(lambda tensor: tensor.cpu()))
        host: Self = self._host  # type: ignore[assignment]
        return host

    def padding_mask(self, until: int | None = None) -> Tensor | None:
        """The attention mask of the first columns (default all); None if none of their tokens is padding."""
        is_padded = not bool(self.on_host.mask[:, :until].all())
        return self.mask[:, :until] if is_padded else None

    def rows(self, index: Int[Tensor, " rows"]) -> Self:
        """The tokens of some rows, in any order and number.

        Args:
            index: the rows; on the CPU, so that the copy on the host needs no values of the device.
        """
        host = self._host.rows(index) if self._host is not None and index.device.type == "cpu" else None
        index = index.to(self.input_ids.device, non_blocking=True)
        return self._map(lambda tensor: tensor[index], host)

    def to(self, device: torch.device | str) -> Self:
        """The same tokens on another device."""
        if torch.device(device).type == "cpu":
            return self.on_host
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), self.on_host)

    def _map(self, change: Callable[[Tensor], Tensor], host_copy: "TokenBatch | None" = None) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **changed, host_copy=host_copy)

    def append(self, new: "TokenBatch") -> "TokenBatch":
        """These tokens followed by others, (batch, tokens + new), whose positions continue the count.

        Args:
            new: the other tokens, right padded; their own positions do not matter.
        """
        is_known = self._host is not None and new._host is not None
        return TokenBatch(
            torch.cat([self.input_ids, new.input_ids], 1),
            torch.cat([self.mask, new.mask], 1),
            torch.cat([self.positions, self.positions[:, -1:] + new.mask.cumsum(1)], 1),
            host_copy=self.on_host.append(new.on_host) if is_known else None,
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

    def is_read(self, with_last: bool) -> Bool[Tensor, "batch tokens"]:
        """Which tokens some receiver token reads; with the last token, which fusion mode `prompt` reads."""
        width = self.input_ids.shape[1]
        is_read = torch.zeros(len(self.input_ids), width + 1, dtype=torch.bool, device=self.index.device)
        # -1 is written to an extra column.
        is_read.scatter_(1, self.index.where(self.index >= 0, width), True)
        if with_last:
            is_read[:, width - 1] = True
        return is_read[:, :width]

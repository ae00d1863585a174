"""The body of a prefill request, checked against the sharer."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from c2c_lightning.channel.channel import Channel
from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.kv.geometry import KVGeometry

Matrix = list[list[int]]


class PrefillBody(BaseModel):
    """As `PrefillRequest`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_ids: Matrix = Field(min_length=1)
    attention_mask: Matrix
    position_ids: Matrix
    is_read: Matrix
    layers: list[int]
    bits: Literal[32, 16, 8, 4] = 32
    group: int = Field(64, ge=1, le=2**20)

    @model_validator(mode="after")
    def _shapes(self) -> "PrefillBody":
        width = len(self.input_ids[0])
        for name in ("input_ids", "attention_mask", "position_ids", "is_read"):
            rows = getattr(self, name)
            if len(rows) != len(self.input_ids) or any(len(row) != width for row in rows):
                raise ValueError(f"{name} is not a table of {len(self.input_ids)} rows of {width} columns")
        for name in ("attention_mask", "is_read"):
            if any(value not in (0, 1) for row in getattr(self, name) for value in row):
                raise ValueError(f"{name} has values other than 0 and 1")
        if not width or any(not 0 <= value < 2**31 for row in self.position_ids for value in row):
            raise ValueError("position_ids has negative or too large values, or there are no tokens")
        return self

    @property
    def tokens(self) -> TokenBatch:
        """The tokens."""
        return TokenBatch(*(torch.tensor(rows) for rows in (self.input_ids, self.attention_mask, self.position_ids)))

    @property
    def read(self) -> Tensor:
        """(batch, columns) bool: tokens whose entries are sent."""
        return torch.tensor(self.is_read).bool()

    @property
    def channel(self) -> Channel:
        """The precision that is asked for."""
        return Channel(self.bits, self.group)

    def num_bytes(self, geometry: KVGeometry, entry_bytes: int) -> float:
        """Bytes of the answer before compression.

        Raises:
            ValueError: a layer that the sharer does not have.
        """
        if unknown := [n for n in self.layers if not 0 <= n < geometry.num_layers]:
            raise ValueError(f"layers {unknown} do not exist; the sharer has layers 0 to {geometry.num_layers - 1}")
        per_token = sum(self.channel.token_bytes(geometry.layers[n], entry_bytes) for n in set(self.layers))
        return per_token * sum(map(sum, self.is_read))

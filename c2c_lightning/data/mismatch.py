"""Mismatched sharers, which read other prompts than the receiver: a control for transferred information."""

from dataclasses import replace

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch


def swap_sharers(own: PromptBatch, donors: PromptBatch) -> PromptBatch:
    """Prompts with the sharers of other prompts, row by row.

    Args:
        own: the receiver's prompts.
        donors: the prompts of the sharers.
    """
    pairs = zip(own.sharers, donors.sharers, strict=True)
    sharers = (replace(theirs, source_index=reread(mine.index, theirs.index)) for mine, theirs in pairs)
    return PromptBatch(own.receiver, tuple(sharers))


def reread(own_index: Tensor, donor_index: Tensor) -> Tensor:
    """The donor token that each receiver token reads.

    Args:
        own_index: (batch, receiver tokens), the source index of the receiver's own sharer tokens.
        donor_index: (batch, donor's receiver tokens), that of the donor.

    Returns:
        (batch, receiver tokens): the k-th fused token from the end reads the donor's k-th fused source from the end,
        or its first where the donor has fewer.
    """
    index = torch.full_like(own_index, -1)
    for row in range(len(own_index)):
        fused = (own_index[row] >= 0).nonzero()[:, 0].flip(0)
        sources = donor_index[row][donor_index[row] >= 0].flip(0)
        if len(sources):
            index[row, fused] = sources[torch.arange(len(fused), device=index.device).clamp(max=len(sources) - 1)]
    return index

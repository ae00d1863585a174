"""Mismatched sharers, which read other prompts than the receiver: a control for transferred information."""

from dataclasses import replace

import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, TrainingBatch


def swap_sharers(prompts: PromptBatch, donors: PromptBatch) -> PromptBatch:
    """Prompts with the sharers of other prompts, row by row; made on the host, see `TokenBatch`."""
    device, prompts, donors = prompts.receiver.input_ids.device, prompts.on_host, donors.on_host
    pairs = zip(prompts.sharers, donors.sharers, strict=True)
    sharers = (replace(theirs, source_index=reread(mine.index, theirs.index)) for mine, theirs in pairs)
    return PromptBatch(prompts.receiver, tuple(sharers)).to(device)


def swap_rows(batch: TrainingBatch) -> TrainingBatch:
    """The batch with the sharer prompts of each row's donor."""
    host = batch.on_host
    swapped = swap_sharers(host.prompt, host.prompt.select(donor_rows(host.prompt)))
    other = TrainingBatch(swapped, host.response_ids, host.response_mask, host.supervised)
    return other.to(batch.response_ids.device)


def donor_rows(prompts: PromptBatch) -> Tensor:
    """For each row the next one, cyclically, whose sharers have other tokens; (batch,), of prompts on the CPU.

    The next row at all where sharers have the same tokens in every row.
    """
    count = len(prompts)
    tokens = [
        [sharer.input_ids[row][sharer.mask[row].bool()].tolist() for sharer in prompts.sharers] for row in range(count)
    ]
    following = [[(row + step) % count for step in range(1, count)] for row in range(count)]
    donors = [
        next((other for other in others if tokens[other] != tokens[row]), (row + 1) % count)
        for row, others in enumerate(following)
    ]
    return torch.tensor(donors, dtype=torch.long)


def reread(index: Tensor, donor_index: Tensor) -> Tensor:
    """The donor token that each receiver token reads, (batch, receiver tokens).

    The k-th fused token from the end reads the donor's k-th fused source from the end, or its first where the donor has
    fewer: the tokens next to the answer matter most, so prompts of different lengths are matched there.

    Args:
        index: (batch, receiver tokens), the source index of the prompts.
        donor_index: (batch, donor's receiver tokens), that of the donors.
    """
    result = torch.full_like(index, -1)
    for row in range(len(index)):
        fused = (index[row] >= 0).nonzero()[:, 0].flip(0)
        sources = donor_index[row][donor_index[row] >= 0].flip(0)
        if len(sources):
            result[row, fused] = sources[torch.arange(len(fused), device=index.device).clamp(max=len(sources) - 1)]
    return result

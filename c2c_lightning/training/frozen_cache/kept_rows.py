"""Which tokens of a batch have entries that do not depend on the fuser, and are read."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.model.core import C2CCore
from c2c_lightning.model.decode_cache import with_response
from c2c_lightning.training.frozen_cache.row_tokens import RowTokens, rows_until

WantedTokens = list[Int[Tensor, " _"]]
"""For each row the numbers of the tokens whose entries are read."""


def sharer_rows(prompt: PromptBatch, number: int, with_last: bool) -> tuple[list[RowTokens], WantedTokens]:
    """The prompts of one sharer up to the last token that is read, and the tokens that are read.

    Args:
        prompt: the prompts.
        number: of the sharer.
        with_last: whether the last prompt token is read too.
    """
    tokens = prompt.sharers[number].on_host
    # The last receiver token is never part of a span, with any source.
    source = torch.cat([tokens.index[:, :-1], torch.full_like(tokens.index[:, -1:], -1)], 1)
    is_read = replace(tokens, source_index=source).is_read(with_last)
    # A model is causal: its entries depend on no token after the last one that is read.
    ends = [_end_of(row) for row in is_read]
    rows = rows_until(tokens, ends)
    return rows, [is_read[n, row.first : ends[n]].nonzero()[:, 0] for n, row in enumerate(rows)]


def receiver_rows(prompt: PromptBatch, steps: Sequence[FusionStep]) -> tuple[list[RowTokens], WantedTokens]:
    """The receiver's prompts up to the end of each row's first fusion step; all their tokens are read.

    Args:
        prompt: the prompts, on the CPU.
        steps: their fusion steps.
    """
    ends = torch.full((len(prompt),), prompt.num_receiver_tokens - 1)
    for step in reversed(steps):
        for fused in step.fused_tokens:
            ends[fused.row] = step.end
    rows = rows_until(prompt.receiver, ends.tolist())
    return rows, [torch.arange(len(row)) for row in rows]


def kept_rows(core: C2CCore, batch: TrainingBatch) -> list[tuple[list[RowTokens], WantedTokens]]:
    """The rows of a batch and the tokens whose entries are kept, for each sharer and for the receiver."""
    mode, batch = core.mode, batch.on_host
    prompt = batch.prompt
    if mode.fuses_response:
        prompt = with_response(core.receiver, core.sharers, prompt, batch.response_inputs)
    with_last = mode.fuses_last_prompt_token and not mode.fuses_response
    per_sharer = [sharer_rows(prompt, number, with_last) for number in range(len(core.sharers))]
    return [*per_sharer, receiver_rows(prompt, mode.plan(prompt, core.fuser.config))]


def _end_of(is_read: Tensor) -> int:
    columns = is_read.nonzero()
    return int(columns[-1]) + 1 if len(columns) else 0

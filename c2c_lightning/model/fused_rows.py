"""Takes fused prompts of a batch apart into rows, and puts rows together into a batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.kv.layer import LayerKV, LayerStack, select_rows, states_of, with_states
from c2c_lightning.kv.states import ModelStates, StateCheckpoint, join_states
from c2c_lightning.model.fused_prompt import FusedPrompt

Plan = Callable[[PromptBatch], tuple[FusionStep, ...]]
"""The fusion steps of a prompt, as `FusionMode.plan` with a fuser's configuration."""


def row_of(fused: FusedPrompt, number: int, plan: Plan) -> FusedPrompt:
    """One prompt of a batch without its padding, in memory of its own.

    Args:
        fused: the batch.
        number: the row.
        plan: computes the fusion steps of the row alone.
    """
    if len(fused.prompt) == 1:
        return fused
    first, tokens = _without_padding(fused.prompt.receiver, number)
    columns = [_without_padding(TokenBatch(s.input_ids, s.mask, s.positions), number) for s in fused.prompt.sharers]
    sharers = [
        SharerTokens(t.input_ids, t.mask, t.positions, _moved(s.index[number : number + 1, first:], begin))
        for s, (begin, t) in zip(fused.prompt.sharers, columns, strict=True)
    ]
    prompt = PromptBatch(tokens, tuple(sharers))
    sharer_kv = [
        None if kv is None else _row(kv, number, begin) for kv, (begin, _) in zip(fused.sharer_kv, columns, strict=True)
    ]
    unfused_kv, fused_kv = _row(fused.unfused_kv, number, first), _row(fused.fused_kv, number, first)
    return replace(
        fused,
        prompt=prompt,
        plan=plan(prompt),
        sharer_kv=sharer_kv,
        unfused_kv=unfused_kv,
        fused_kv=fused_kv,
        checkpoints=tuple(_row_of_states(point, number, first) for point in fused.checkpoints),
    )


def join_rows(rows: Sequence[FusedPrompt], prompt: PromptBatch) -> FusedPrompt:
    """Prompts as one left-padded batch to generate from; it is no prefix for others.

    Args:
        rows: fused prompts, each a batch of one.
        prompt: the same prompts as a batch.
    """
    width = prompt.num_receiver_tokens - 1
    stacks = zip(*(row.fused_kv for row in rows), strict=True)
    fused_kv = [
        LayerKV(_padded([kv.keys for kv in kvs], width), _padded([kv.values for kv in kvs], width)) for kvs in stacks
    ]
    states = [row.states for row in rows if row.states is not None]
    checkpoints = (StateCheckpoint(width, join_states(states)),) if states else ()
    return FusedPrompt(prompt, (), [None] * len(prompt.sharers), fused_kv, fused_kv, checkpoints=checkpoints)


def _without_padding(tokens: TokenBatch, number: int) -> tuple[int, TokenBatch]:
    """The first unpadded column of a row, and the row from there on."""
    first = int(tokens.mask[number].argmax())
    parts = (part[number : number + 1, first:] for part in (tokens.input_ids, tokens.mask, tokens.positions))
    return first, TokenBatch(*parts)


def _moved(source_index: Tensor, columns: int) -> Tensor:
    return torch.where(source_index >= 0, source_index - columns, source_index)


def _row(kv: LayerStack, number: int, first: int) -> LayerStack:
    row = select_rows(kv, torch.tensor([number]))
    return with_states([layer.tokens(first) for layer in row], states_of(row))


def _row_of_states(point: StateCheckpoint, number: int, first: int) -> StateCheckpoint:
    """A row's states; those within its padding are the initial ones."""
    if point.num_tokens <= first:
        return StateCheckpoint(0, ModelStates(point.states.layout, {}))
    return StateCheckpoint(point.num_tokens - first, point.states.rows(torch.tensor([number])))


def _padded(tensors: Sequence[Tensor], width: int) -> Tensor:
    """Entries (1, kv_heads, tokens, dim) of several rows, padded on the left to (rows, kv_heads, width, dim)."""
    return torch.cat([F.pad(tensor, (0, 0, width - tensor.shape[2], 0)) for tensor in tensors])

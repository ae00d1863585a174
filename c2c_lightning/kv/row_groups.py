"""Rows of like length, so that a ragged batch is run with little padding."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from c2c_lightning.kv.layer import LayerKV, LayerStack

#: What one more pass costs beside its tokens, in tokens: weights are read again and products get smaller.
PASS_COST = 32


def row_groups(lengths: Sequence[int], pass_cost: int = PASS_COST) -> list[list[int]]:
    """Rows to run together so that all passes cost least: in each, rows x the longest of them, and `pass_cost`.

    Args:
        lengths: tokens of each row.
        pass_cost: what a pass costs beside its tokens, in tokens.

    Returns:
        Numbers of rows; within a group and from group to group from short to long. Rows without tokens are left out.
    """
    rows = sorted((row for row, length in enumerate(lengths) if length), key=lengths.__getitem__)
    # best[n]: least cost of the first n rows, and where their last group begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(rows) + 1):
        longest = lengths[rows[end - 1]]
        best.append(min((best[begin][0] + (end - begin) * longest + pass_cost, begin) for begin in range(end)))
    groups: list[list[int]] = []
    end = len(rows)
    while end:
        begin = best[end][1]
        groups.append(rows[begin:end])
        end = begin
    return groups[::-1]


def left_padded_lengths(mask: Tensor) -> list[int]:
    """Columns from each row's first real token on; `mask` (batch, tokens), 1 for a real token."""
    columns = torch.arange(mask.shape[1], 0, -1, device=mask.device)
    lengths: list[int] = (columns * mask.bool()).amax(1).tolist()
    return lengths


def run_by_length(
    run: Callable[[Tensor, Tensor, Tensor], LayerStack], input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
) -> LayerStack:
    """What `run` gives for a left-padded batch, in as many passes as are worth it.

    Args:
        run: a prefill of ids, mask and positions.
        input_ids: (batch, tokens).
        attention_mask: (batch, tokens).
        position_ids: (batch, tokens).
    """
    batch, tokens = input_ids.shape
    lengths = left_padded_lengths(attention_mask)
    groups = row_groups(lengths)
    if len(groups) < 2:
        return run(input_ids, attention_mask, position_ids)
    parts = []
    for rows in groups:
        begin, pick = tokens - lengths[rows[-1]], torch.tensor(rows, device=input_ids.device)
        parts.append(run(input_ids[pick, begin:], attention_mask[pick, begin:], position_ids[pick, begin:]))
    return spread(groups, parts, batch, tokens)


def spread(groups: Sequence[Sequence[int]], parts: Sequence[LayerStack], batch: int, tokens: int) -> LayerStack:
    """The entries of groups of rows as those of one left-padded batch; zeros on padding.

    Args:
        groups: the rows of each group.
        parts: the entries of each group, (rows, kv_heads, longest, head_dim) in each layer.
        batch: rows of the whole batch.
        tokens: its columns.
    """

    def whole(of_layer: Sequence[Tensor]) -> Tensor:
        _, heads, _, dim = of_layer[0].shape
        entries = of_layer[0].new_zeros(batch, heads, tokens, dim)
        for rows, part in zip(groups, of_layer, strict=True):
            entries[torch.tensor(rows, device=part.device), :, tokens - part.shape[2] :] = part
        return entries

    layers = zip(*parts, strict=True)
    return [LayerKV(whole([kv.keys for kv in kvs]), whole([kv.values for kv in kvs])) for kvs in layers]

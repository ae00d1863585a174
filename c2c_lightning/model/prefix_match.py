"""Prefix matching: finds the longest prefix of prompts whose cache entries are identical to those of a cached prompt.

An entry of the receiver's cache depends on the tokens before it, and on the ends of the fusion steps before it: tokens
after a step attend to its fused entries. A fused entry also depends on the sharer tokens that it reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.errors import PromptError
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV
from c2c_lightning.model.fused_prompt import FusedPrompt
from c2c_lightning.model.prefill_state import PrefillState, checkpoint
from c2c_lightning.model.reused_columns import ReusedColumns, own_checkpoint


@dataclass(frozen=True)
class PrefixMatch(PrefillState):
    """A prefill that starts from the entries of a cached prompt, and reuses its fused entries.

    Attributes:
        cached_fused: the cached prompt's fused entries, over as many columns as the initial state; right in the first
            `num_fused` of them.
        num_fused: number of columns whose fused entries are known.
        sharer_kv: each sharer's matching entries; None for a sharer that is left out.
    """

    cached_fused: LayerStack
    num_fused: int
    sharer_kv: Sequence[LayerStack | None]

    def fuse(self, fuser: Fuser, sharer_kv: SharerKV, step: FusionStep) -> Self:
        """As `PrefillState.fuse`; known entries are taken from the cached prompt."""
        before, rest = step.split(self.num_fused)
        known = replace(self, fused_kv=_with_entries(self.fused_kv, self.cached_fused, before))
        return PrefillState.fuse(known, fuser, sharer_kv, rest)


def match_prefix(
    cached: FusedPrompt, prompt: PromptBatch, plan: Sequence[FusionStep], origin: Any, fused_only: bool = False
) -> PrefixMatch | None:
    """The entries that new prompts share with one cached prompt; None if nothing may be reused.

    Columns match up to the same one in every row, so that the remaining columns are one block.

    Args:
        cached: the cached prompt, a batch of one.
        prompt: the new prompts, on the same device; each may begin as the cached one does, or not.
        plan: their fusion steps.
        origin: identity of what would make their entries.
        fused_only: whether fused tokens have no entries of the receiver's own, see `FusionMode.replaces_receiver`.

    Raises:
        PromptError: the cached batch has more than one prompt.
    """
    if len(cached.prompt) != 1:
        raise PromptError(f"A prefix must be one prompt, but this one is a batch of {len(cached.prompt)}.")
    if origin is None or origin != cached.origin:
        return None
    shifts = _first_columns(prompt.receiver) - _first_columns(cached.prompt.receiver)
    rows = [_match_row(cached, prompt, plan, row, int(shift)) for row, shift in enumerate(shifts)]
    reused = ReusedColumns.of(cached.checkpoints, shifts, [row.fused if fused_only else row.unfused for row in rows])
    fused_end = min(reused.end, ReusedColumns.of((), shifts, [row.fused for row in rows]).end)
    sharer_kv: list[LayerStack | None] = []
    for number, kv in enumerate(cached.sharer_kv):
        moved = _first_columns(prompt.sharers[number]) - _first_columns(cached.prompt.sharers[number])
        columns = [row.sharers[number] for row in rows]
        sharer_kv.append(None if kv is None else ReusedColumns.of(own_checkpoint(kv), moved, columns).take(kv))
    unfused_kv = reused.take(cached.unfused_kv)
    checkpoints = checkpoint(reused.end, unfused_kv)
    return PrefixMatch(
        prompt.receiver, unfused_kv, unfused_kv, checkpoints, reused.take(cached.fused_kv), fused_end, sharer_kv
    )


@dataclass(frozen=True)
class _RowMatch:
    """Numbers of matching columns of one row, counted in the cached prompt: receiver entries and each sharer's."""

    unfused: int
    fused: int
    sharers: list[int]


def _match_row(cached: FusedPrompt, prompt: PromptBatch, plan: Sequence[FusionStep], row: int, shift: int) -> _RowMatch:
    """The longest matching prefix of one new prompt.

    Args:
        cached: the cached prompt.
        prompt: the new prompts.
        plan: their fusion steps.
        row: row of the new prompt.
        shift: its number of padding columns less the cached prompt's.
    """
    same_tokens = min(
        _common_prefix(_entry_inputs(cached.prompt.receiver, 0), _entry_inputs(prompt.receiver, row), shift),
        cached.unfused_kv[0].num_tokens,
        prompt.num_receiver_tokens - 1 - shift,
    )
    sharers, same_sources = [], same_tokens
    for old, new, kv in zip(cached.prompt.sharers, prompt.sharers, cached.sharer_kv, strict=True):
        moved = int(_first_columns(new)[row] - _first_columns(old)[0])
        common = _common_prefix(_entry_inputs(old, 0), _entry_inputs(new, row), moved)
        sharers.append(min(common, kv[0].num_tokens) if kv else 0)
        if kv is None:
            continue
        source = torch.where(new.index[row] >= 0, new.index[row] - moved, new.index[row])
        # Outside the common part of the sharer's prompts the same source index names another token.
        known = torch.where(old.index[0] < sharers[-1], old.index[0], -2)
        same_sources = min(same_sources, _common_prefix(known[None], source[None], shift))
    # Entries after a step attend to its fused entries: they match only where the same steps end before them.
    ends, new_ends = _step_ends(cached.plan, 0, 0), _step_ends(plan, row, shift)
    borders = (ends ^ new_ends) | {end for end in ends | new_ends if end > same_sources}
    unfused = min([same_tokens, *borders])
    return _RowMatch(unfused, min(unfused, same_sources), sharers)


def _entry_inputs(tokens: TokenBatch, row: int) -> Tensor:
    """The inputs that determine an entry: id, mask, position, (3, tokens)."""
    return torch.stack([tokens.input_ids[row], tokens.mask[row], tokens.positions[row]])


def _common_prefix(old: Tensor, new: Tensor, shift: int) -> int:
    """Number of leading columns in which two rows agree.

    Args:
        old: (features, columns).
        new: (features, columns), shifted right by `shift` columns.
        shift: negative where the old row has more padding.
    """
    old, new = old[:, max(0, -shift) :], new[:, max(0, shift) :]
    length = min(old.shape[1], new.shape[1])
    differs = (old[:, :length] != new[:, :length]).any(0)
    first = int(differs.int().argmax()) if bool(differs.any()) else length
    return first + max(0, -shift)


def _first_columns(tokens: TokenBatch) -> Tensor:
    """The column of each row's first unpadded token, (batch,)."""
    return tokens.mask.argmax(1).cpu()


def _step_ends(plan: Sequence[FusionStep], row: int, shift: int) -> set[int]:
    """The ends of the steps that fuse tokens of a row, less `shift` columns."""

    def takes_part(step: FusionStep) -> bool:
        return any(bool((fused.row == row).any()) for fused in step.fused_tokens)

    return {step.end - shift for step in plan if takes_part(step)}


def _with_entries(kv: LayerStack, known: LayerStack, step: FusionStep) -> LayerStack:
    """A cache in which the tokens of a step have their known fused entries."""
    for fused in step.fused_tokens:
        if len(fused):
            index = fused.row, fused.token
            kv = [
                LayerKV(_put(old.keys, new.keys, index), _put(old.values, new.values, index))
                for old, new in zip(kv, known, strict=True)
            ]
    return kv


def _put(old: Tensor, new: Tensor, index: tuple[Tensor, Tensor]) -> Tensor:
    # (batch, kv_heads, tokens, dim) to (batch, tokens, kv_heads, dim) and back
    return old.transpose(1, 2).index_put(index, new.transpose(1, 2)[index]).transpose(1, 2)

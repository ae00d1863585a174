"""What of a new prompt was read before: found out token by token, so that nothing is taken that would be another.

An entry of the receiver's cache depends on the tokens before it, and on where fusion rounds ended before it: what
follows a round reads its fused entries. A fused entry depends on what it reads, besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusionStep
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.kv.layer import LayerKV, LayerStack

if TYPE_CHECKING:
    from c2c_lightning.model.fused_prompt import FusedPrompt


@dataclass(frozen=True)
class PrefixMatch:
    """Entries of the first columns of new prompts.

    Attributes:
        plain: the receiver's entries before their own round.
        fused: the same after it, as many columns; right in the first `num_fused` of them.
        num_fused: for how many columns the fused entries are known.
        sharer_kv: the same columns or others of each sharer; None for one that is left out.
    """

    plain: LayerStack
    fused: LayerStack
    num_fused: int
    sharer_kv: list[LayerStack | None]


def match_prefix(kept: "FusedPrompt", prompt: PromptBatch, rounds: Sequence[FusionStep]) -> PrefixMatch:
    """What of new prompts was read already, as the beginning of one kept prompt.

    Columns are known up to the same one in every row, so that what is left is one block.

    Args:
        kept: the one prompt that was read.
        prompt: the new prompts.
        rounds: their fusion rounds.
    """
    shifts = _first_columns(prompt.receiver) - _first_columns(kept.prompt.receiver)
    rows = [_alike(kept, prompt, rounds, row, int(shift)) for row, shift in enumerate(shifts)]
    plain_end = max(0, min(int(shift) + row.plain for shift, row in zip(shifts, rows, strict=True)))
    fused_end = max(0, min(int(shift) + row.fused for shift, row in zip(shifts, rows, strict=True)))
    sharer_kv: list[LayerStack | None] = []
    for number, kv in enumerate(kept.sharer_kv):
        moved = _first_columns(prompt.sharers[number]) - _first_columns(kept.prompt.sharers[number])
        end = max(0, min(int(shift) + row.sharers[number] for shift, row in zip(moved, rows, strict=True)))
        sharer_kv.append(None if kv is None else _placed(kv, moved, end))
    return PrefixMatch(
        _placed(kept.plain, shifts, plain_end), _placed(kept.fused, shifts, plain_end), fused_end, sharer_kv
    )


@dataclass(frozen=True)
class _Alike:
    """How many columns of a kept prompt a new one shares: plain and fused entries, and each sharer's."""

    plain: int
    fused: int
    sharers: list[int]


def _alike(kept: "FusedPrompt", prompt: PromptBatch, rounds: Sequence[FusionStep], row: int, shift: int) -> _Alike:
    """The beginning that one new prompt has in common with the kept one, in the kept one's columns.

    Args:
        kept: the prompt that was read.
        prompt: the new prompts.
        rounds: their fusion rounds.
        row: which of them.
        shift: how many more columns of padding it begins with.
    """
    same_tokens = min(
        _common(_features(kept.prompt.receiver, 0), _features(prompt.receiver, row), shift),
        kept.plain[0].num_tokens,
        prompt.num_receiver_tokens - 1 - shift,
    )
    sharers, same_reads = [], same_tokens
    for old, new, kv in zip(kept.prompt.sharers, prompt.sharers, kept.sharer_kv, strict=True):
        moved = int(_first_columns(new)[row] - _first_columns(old)[0])
        alike = 0 if not kv else min(_common(_features(old, 0), _features(new, row), moved), kv[0].num_tokens)
        sharers.append(alike)
        if kv is None:
            continue
        source = new.index[row]
        source = torch.where(source >= 0, source - moved, source)
        # A token that reads what the two sharers' prompts do not share reads something else.
        known = torch.where(old.index[0] < alike, old.index[0], -2)
        same_reads = min(same_reads, _common(known[None], source[None], shift))
    ends, new_ends = _round_ends(kept.rounds, 0, 0), _round_ends(rounds, row, shift)
    borders = (ends ^ new_ends) | {end for end in ends | new_ends if end > same_reads}
    plain = min([same_tokens, *borders])
    return _Alike(plain, min(plain, same_reads), sharers)


def _features(tokens: TokenBatch, row: int) -> Tensor:
    """What makes an entry, (3, tokens)."""
    return torch.stack([tokens.input_ids[row], tokens.mask[row], tokens.positions[row]])


def _common(old: Tensor, new: Tensor, shift: int) -> int:
    """How many columns two rows have in common from the first one on.

    Args:
        old: (features, columns).
        new: (features, columns), `shift` columns later.
        shift: may be negative where the old row is padded.
    """
    old, new = old[:, max(0, -shift) :], new[:, max(0, shift) :]
    length = min(old.shape[1], new.shape[1])
    differs = (old[:, :length] != new[:, :length]).any(0)
    first = int(differs.int().argmax()) if bool(differs.any()) else length
    return first + max(0, -shift)


def _first_columns(tokens: TokenBatch) -> Tensor:
    """The column of each row's first token, (batch,)."""
    return tokens.mask.argmax(1).cpu()


def _round_ends(rounds: Sequence[FusionStep], row: int, shift: int) -> set[int]:
    """The columns after a row's fusion rounds, counted without `shift` columns."""
    return {
        fusion.end - shift for fusion in rounds if any(bool((read.row == row).any()) for read in fusion.fused_tokens)
    }


def _placed(kv: LayerStack, shifts: Tensor, end: int) -> LayerStack:
    """One row's entries as the first `end` columns of several rows, each so many columns later."""

    def take(entries: Tensor) -> Tensor:
        column = (torch.arange(end)[None] - shifts[:, None]).clamp(min=0).to(entries.device)
        # (1, kv_heads, tokens, dim) to (kv_heads, rows, end, dim) to (rows, kv_heads, end, dim)
        return entries[0][:, column].transpose(0, 1)

    return [LayerKV(take(layer.keys), take(layer.values)) for layer in kv]


def put(kv: LayerStack, known: LayerStack, fusion: FusionStep) -> LayerStack:
    """A cache with the known entries of fused tokens in it.

    Args:
        kv: the cache.
        known: entries of its first columns.
        fusion: the tokens.
    """
    for read in fusion.fused_tokens:
        if len(read):
            place = read.row, read.token
            kv = [
                LayerKV(_with(old.keys, new.keys, place), _with(old.values, new.values, place))
                for old, new in zip(kv, known, strict=True)
            ]
    return kv


def _with(old: Tensor, new: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
    # (batch, kv_heads, tokens, dim) to (batch, tokens, kv_heads, dim) and back
    return old.transpose(1, 2).index_put(place, new.transpose(1, 2)[place]).transpose(1, 2)


def joined(kv: LayerStack, new: LayerStack) -> LayerStack:
    """A cache followed by newer entries."""
    return [old.append(layer) for old, layer in zip(kv, new, strict=True)]

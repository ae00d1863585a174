"""Text that the prompts of a batch share, such as worked examples: it is prefilled once, not once for each row."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from c2c_lightning.data.token_batch import TokenBatch
from c2c_lightning.kv.layer import LayerKV, LayerStack, append_kv, select_rows
from c2c_lightning.model.frozen_lm import FrozenLM

#: A shorter prefix is not worth a second pass.
FEWEST_TOKENS = 16


def prefill_prompts(lm: FrozenLM, tokens: TokenBatch, until: int, num_layers: int | None = None) -> LayerStack:
    """As `FrozenLM.prefill_tokens`, with the text that prompts share prefilled once.

    Args:
        lm: the model that reads the rows.
        tokens: the rows, left padded.
        until: number of columns that are prefilled.
        num_layers: number of layers that are needed, from the first; default all.
    """
    length = shared_prefix_length(lm, tokens, until) or _length_shared_with_last(lm, tokens, until)
    if not length:
        return lm.prefill_tokens(tokens, until, None, num_layers)
    num_layers = lm.geometry.num_layers if num_layers is None else num_layers
    return prefill_with_shared_prefix(lm, tokens, until, length, num_layers)


def shared_prefix_length(lm: FrozenLM, tokens: TokenBatch, until: int) -> int:
    """Number of first tokens that all rows have in common; 0 where a pass of their own is not worth it or not exact.

    Args:
        lm: the model that reads the rows.
        tokens: the rows, left padded.
        until: number of columns that are prefilled.
    """
    if len(tokens.input_ids) < 2 or not lm.can_generate or not _can_continue(lm):
        return 0
    host = tokens.on_host
    starts = _starts(host)
    # At least one token of each row is left for the second pass.
    limit = until - 1 - int(starts.max())
    # Passes for each length of the rows are worth it for a prefix of half of the text.
    fewest = max(FEWEST_TOKENS, until // 2 if _needs_equal_lengths(lm, starts, until) else 0)
    if limit < fewest:
        return 0
    ids = host.input_ids.gather(1, starts[:, None] + torch.arange(limit))
    length = _same_start(ids[1:], ids[:1])
    return length if length >= fewest else 0


def _length_shared_with_last(lm: FrozenLM, tokens: TokenBatch, until: int) -> int:
    """Number of first tokens that a single prompt has in common with the model's last one, or its last prefix.

    In inference alone: the passes of a training, and so its rounding, depend on no earlier step.
    """
    is_single = len(tokens.input_ids) == 1 and torch.is_inference_mode_enabled()
    if not is_single or not lm.can_generate or not _can_continue(lm):
        return 0
    host = tokens.on_host
    ids = host.input_ids[0, int(_starts(host)[0]) : until - 1]
    last, _last[lm] = _last.get(lm), ids
    kept = _kept.get(lm)
    if kept is not None and _same_start(ids[None], kept.ids[None]) == len(kept.ids):
        return len(kept.ids)
    length = 0 if last is None else _same_start(ids[None], last[None])
    # Of half of a prompt at least: prompts of other questions share a few words of the template.
    return length if length >= max(FEWEST_TOKENS, len(ids) // 2) else 0


def _same_start(rows: Tensor, other: Tensor) -> int:
    """Number of first tokens in which all rows agree with another one, (1, tokens)."""
    width = min(rows.shape[1], other.shape[1])
    is_same = (rows[:, :width] == other[:, :width]).all(0)
    return width if bool(is_same.all()) else int(is_same.long().argmin())


def prefill_with_shared_prefix(
    lm: FrozenLM, tokens: TokenBatch, until: int, length: int, num_layers: int | None
) -> LayerStack:
    """As `FrozenLM.prefill_tokens`, with one pass over the first `length` tokens of one row, and one over the rest.

    The last prefix of each model is kept: batches of one data set have the same worked examples.
    """
    start = int(_starts(tokens.on_host)[0])
    one = _prefix(lm, tokens, slice(start, start + length), num_layers)
    return continue_shared_prefix(lm, tokens, until, one, num_layers)


def continue_shared_prefix(
    lm: FrozenLM, tokens: TokenBatch, until: int, one: LayerStack, num_layers: int | None
) -> LayerStack:
    """The cache over `until` columns of rows that all begin with the tokens of `one`, a cache of one row."""
    starts, length = _starts(tokens.on_host), one[0].num_tokens
    if _needs_equal_lengths(lm, starts, until):
        return _continue_by_length(lm, tokens, until, one, num_layers)
    prefix = [layer.map(lambda entries: entries.expand(len(starts), -1, -1, -1)) for layer in one]
    columns = torch.arange(until)
    # Columns: the prefix, then those of the rows, without the tokens of the prefix in them.
    is_read = ((columns < length) | (columns >= starts[:, None] + length)).long()
    mask = None if bool(is_read.all()) else is_read
    rest = slice(length, until)
    new = lm.prefill(tokens.input_ids[:, rest], mask, tokens.positions[:, rest], prefix, num_layers)
    joined = append_kv(prefix, new)
    return joined if mask is None else _left_padded(joined, starts, length)


def _continue_by_length(
    lm: FrozenLM, tokens: TokenBatch, until: int, one: LayerStack, num_layers: int | None
) -> LayerStack:
    """As `continue_shared_prefix`, with a pass for the rows of each length, which have no padding."""
    starts = _starts(tokens.on_host)
    rows, parts = [], []
    for start in starts.unique().tolist():
        rows.append((starts == start).nonzero()[:, 0])
        alike = _columns(tokens.rows(rows[-1]), start, until)
        kv = continue_shared_prefix(lm, alike, until - start, one, num_layers)
        parts.append([layer.map(partial(pad, pad=(0, 0, start, 0))) for layer in kv])
    joined = [LayerKV.merge(layers, torch.cat) for layers in zip(*parts, strict=True)]
    return select_rows(joined, torch.cat(rows).argsort())


def _columns(tokens: TokenBatch, begin: int, end: int) -> TokenBatch:
    """Some columns of all rows, with their copy on the host."""
    host, parts = tokens.on_host, (tokens.input_ids, tokens.mask, tokens.positions)
    copy = None if host is tokens else _columns(host, begin, end)
    return TokenBatch(*(part[:, begin:end] for part in parts), host_copy=copy)


@dataclass(frozen=True)
class _KeptPrefix:
    key: Hashable
    ids: Tensor
    entries: LayerStack


_kept: "WeakKeyDictionary[FrozenLM, _KeptPrefix]" = WeakKeyDictionary()
_last: "WeakKeyDictionary[FrozenLM, Tensor]" = WeakKeyDictionary()


def _prefix(lm: FrozenLM, tokens: TokenBatch, first: slice, num_layers: int | None) -> LayerStack:
    """The entries of some tokens of the first row: those of the last call if all that they depend on is equal.

    C2C and the sharer alone read different numbers of layers of the same examples: the larger number is kept.
    """
    ids, device = tokens.on_host.input_ids[0, first], tokens.input_ids.device
    # A fine-tuned baseline changes its weights in place. Weights made in inference mode are never trained.
    weights = tuple(None if weight.is_inference() else weight._version for weight in lm.model.parameters())
    types = torch.is_autocast_enabled(device.type), torch.is_inference_mode_enabled()
    key = tuple(ids.tolist()), device, weights, types
    kept = _kept.get(lm)
    if kept is None or kept.key != key or len(kept.entries) < (num_layers or lm.geometry.num_layers):
        entries = lm.prefill(tokens.input_ids[:1, first], None, tokens.positions[:1, first], None, num_layers)
        kept = _kept[lm] = _KeptPrefix(key, ids, entries)
    return kept.entries[:num_layers]


def _left_padded(kv: LayerStack, starts: Tensor, length: int) -> LayerStack:
    """Each row's prefix moved next to the rest of the row."""
    columns = torch.arange(kv[0].num_tokens)
    moved = columns - starts[:, None]
    is_prefix = (moved >= 0) & (moved < length)
    source = torch.where(is_prefix, moved, columns).to(kv[0].keys.device)
    rows = torch.arange(len(source), device=source.device)[:, None]

    def move(entries: Tensor) -> Tensor:
        # Copies whole heads; `gather` copies single numbers, which is several times as slow on a CPU.
        return entries.transpose(1, 2)[rows, source].transpose(1, 2)

    return [layer.map(move) for layer in kv]


def _starts(host: TokenBatch) -> Tensor:
    """Number of padding columns in front of each row."""
    return (host.mask == 0).sum(1)


def _can_continue(lm: FrozenLM) -> bool:
    """Whether a pass after a cache is exact, and all processes make the same passes."""
    return not (lm.layout is not None or lm.is_sharded or lm.continues_by_token)


def _needs_equal_lengths(lm: FrozenLM, starts: Tensor, until: int) -> bool:
    """Whether padding between prefix and row would shift an attention window, which counts columns."""
    window = lm.limits.window
    return window is not None and until > window and bool((starts != starts[0]).any())

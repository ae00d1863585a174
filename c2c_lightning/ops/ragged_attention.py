"""Rows of different lengths, run as one: no padding is computed, and products are as large as they can be.

The tokens of a batch lie one after the other in a batch of one. What a model does token by token is done for all of
them at once; attention alone goes row by row, by the function that the model would call anyway. No model code is
changed: transformers has attention functions and masks registered by name.

For a CPU, where a token costs more than a call. A GPU would have to be told the lengths, and to wait for them.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from c2c_lightning.kv.cache import NewEntries
from c2c_lightning.kv.layer import LayerKV

NAME = "c2c_row_by_row"


@dataclass(frozen=True)
class Packing:
    """Which tokens of a padded batch lie in the row.

    Attributes:
        places: (tokens,), their numbers in the flattened batch, in order.
        lengths: how many each row of the batch has.
        shape: rows and columns of the batch.
    """

    places: Tensor
    lengths: tuple[int, ...]
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: Tensor) -> Self:
        """The tokens where `mask` (batch, columns) holds."""
        rows, columns = mask.shape
        return cls(mask.flatten().nonzero()[:, 0], tuple(mask.sum(1).tolist()), (rows, columns))

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, columns, ...) to (1, tokens, ...)."""
        return padded.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, packed: Tensor) -> Tensor:
        """(1, tokens, ...) to (batch, columns, ...), zero where nothing lies."""
        rows, columns = self.shape
        whole = packed.new_zeros(rows * columns, *packed.shape[2:]).index_copy(0, self.places, packed[0])
        return whole.view(rows, columns, *packed.shape[2:])

    def pack_kv(self, kv: LayerKV) -> LayerKV:
        """(batch, kv_heads, columns, dim) to (1, kv_heads, tokens, dim)."""
        keys, values = (self.pack(entries.transpose(1, 2)).transpose(1, 2) for entries in (kv.keys, kv.values))
        return LayerKV(keys, values)

    def unpack_kv(self, kv: LayerKV) -> LayerKV:
        """(1, kv_heads, tokens, dim) to (batch, kv_heads, columns, dim)."""
        keys, values = (self.unpack(entries.transpose(1, 2)).transpose(1, 2) for entries in (kv.keys, kv.values))
        return LayerKV(keys, values)

    def packed_edit(self, edit: NewEntries) -> NewEntries:
        """An edit of padded entries, (batch, ...), as one of packed entries, (1, ...)."""
        return lambda layer, new: self.pack_kv(edit(layer, self.unpack_kv(new)))


def is_contiguous(mask: Int[Tensor, "batch columns"] | Bool[Tensor, "batch columns"]) -> bool:
    """Whether the real tokens of each row are adjacent.

    Tokens with padding between them must not be moved together: sliding windows count columns.
    """
    real = mask.bool()
    starts = (real[:, 1:] & ~real[:, :-1]).sum(1) + real[:, 0]
    return bool((starts <= 1).all())


@dataclass(frozen=True)
class Rows:
    """The rows that lie in one.

    Attributes:
        new: tokens that each of them runs; none for a row that does not take part.
        before: entries that each of them has before these.
    """

    new: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """New tokens and all entries of each row that takes part."""
        return [(new, before + new) for new, before in zip(self.new, self.before, strict=True) if new]

    def behind(self, prefix: Tensor, packed: Tensor) -> Tensor:
        """Each row's new entries behind those that it has, in one row.

        Args:
            prefix: (batch, kv_heads, columns, dim), left padded.
            packed: (1, kv_heads, new tokens, dim).
        """
        parts, columns = [], prefix.shape[2]
        # unbind and split, not indexing: their backward makes one tensor, not one as large as the whole for each row.
        pairs = zip(prefix.unbind(0), packed[0].split(self.new, 1), self.before, strict=True)
        for old, new, before in pairs:
            if new.shape[1]:
                parts += [old[:, columns - before :], new]
        return torch.cat(parts, 1)[None]


@dataclass(frozen=True)
class _RowMasks:
    """What attention of the base kind is to see in each row, in place of a mask."""

    rows: Rows
    base: str
    masks: list[Any]


#: The rows of the pass that is running, and the attention that the model is set to.
_running: ContextVar[tuple[Rows, str]] = ContextVar("rows of the running pass")


@contextmanager
def row_by_row(model: nn.Module, rows: Rows) -> Iterator[None]:
    """While it lasts, `model` attends within each of the rows that lie in its one row; no other thread may run it."""
    config: Any = model.config
    config = config.get_text_config()
    base = config._attn_implementation
    token = _running.set((rows, base))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = base
        _running.reset(token)


def as_now(model: nn.Module) -> AbstractContextManager[None]:
    """To be entered later: `model` attends as it would now. For a part of a pass that is run again after its end."""
    running = _running.get(None)
    return nullcontext() if running is None else row_by_row(model, running[0])


def can_go_row_by_row(model: nn.Module) -> bool:
    """Whether a model's attention can be told the rows: it goes through transformers' registry, by a known kind."""
    config: Any = model.config
    is_told = getattr(type(model), "_supports_attention_backend", False)
    return bool(is_told) and config.get_text_config()._attn_implementation in ("eager", "sdpa")


def _masks(
    q_length: int, kv_length: int, q_offset: int = 0, kv_offset: int = 0, attention_mask: Any = None, **kwargs: Any
) -> _RowMasks:
    """Masks of each row alone: causal, with a window or in chunks, as the model asks."""
    rows, base = _running.get()
    make: Callable[..., Any] = ALL_MASK_ATTENTION_FUNCTIONS[base]
    kwargs["batch_size"] = 1
    masks = [make(q_length=new, kv_length=all_, q_offset=all_ - new, **kwargs) for new, all_ in rows.spans]
    return _RowMasks(rows, base, masks)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: _RowMasks, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of each row by itself; the arguments of any attention function of transformers."""
    spans = attention_mask.rows.spans
    new, all_ = ([span[n] for span in spans] for n in (0, 1))
    parts: Sequence[Sequence[Any]] = (query.split(new, 2), key.split(all_, 2), value.split(all_, 2))
    attend = ALL_ATTENTION_FUNCTIONS.get(attention_mask.base) or _eager(module)
    attended = [attend(module, *row, **kwargs)[0] for row in zip(*parts, attention_mask.masks, strict=True)]
    return torch.cat(attended, 1), None


def _eager(module: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """The plain attention of a model, which has no name in the registry."""
    eager: Callable[..., tuple[Tensor, Any]] = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return eager


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _masks)

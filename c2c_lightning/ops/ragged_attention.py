"""Padding-free (ragged) batching: all sequences concatenated in one row; attention per sequence.

Everything that a model computes token by token is computed for all sequences at once. Attention runs sequence by
sequence, by the attention function of the model itself. No model code is changed: transformers looks up attention
functions and masks by name.

For CPUs, where a padding token costs more than a function call. On a GPU, reading the lengths would be a host sync.

Axes: B batch, C padded columns, T real tokens of all sequences, H KV heads, D head width.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from c2c_lightning.kv.cache import NewEntries
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.ops.replaced_attention import replaced_attention

#: Name of the attention function in the registries of transformers.
NAME = "c2c_ragged"


@dataclass(frozen=True)
class RaggedBatch:
    """The real tokens of a padded batch.

    Attributes:
        indices: (T,), their indices in the flattened (B, C), ascending.
        lengths: number of real tokens of each sequence.
        shape: (B, C).
    """

    indices: Int[Tensor, " tokens"]
    lengths: tuple[int, ...]
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch columns"]) -> Self:
        """The tokens for which `mask` holds."""
        rows, columns = mask.shape
        return cls(mask.flatten().nonzero()[:, 0], tuple(mask.sum(1).tolist()), (rows, columns))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, C, ...) to (1, T, ...)."""
        return padded.flatten(0, 1).index_select(0, self.indices)[None]

    def unpack(self, packed: Tensor) -> Tensor:
        """(1, T, ...) to (B, C, ...), zeros at padding."""
        rows, columns = self.shape
        whole = packed.new_zeros(rows * columns, *packed.shape[2:]).index_copy(0, self.indices, packed[0])
        return whole.view(rows, columns, *packed.shape[2:])

    def pack_kv(self, kv: LayerKV) -> LayerKV:
        """(B, H, C, D) to (1, H, T, D)."""
        return kv.map(lambda entries: self.pack(entries.transpose(1, 2)).transpose(1, 2))

    def unpack_kv(self, kv: LayerKV) -> LayerKV:
        """(1, H, T, D) to (B, H, C, D), zeros at padding."""
        return kv.map(lambda entries: self.unpack(entries.transpose(1, 2)).transpose(1, 2))

    def packed_edit(self, edit: NewEntries) -> NewEntries:
        """An edit of padded entries, (B, ...), as one of packed entries, (1, ...)."""
        return lambda layer, new: self.pack_kv(edit(layer, self.unpack_kv(new)))


def is_contiguous(mask: Int[Tensor, "batch columns"] | Bool[Tensor, "batch columns"]) -> bool:
    """Whether the real tokens of each sequence are adjacent.

    Tokens with padding between them must not be moved together: sliding windows count columns.
    """
    real = mask.bool()
    starts = (real[:, 1:] & ~real[:, :-1]).sum(1) + real[:, 0]
    return bool((starts <= 1).all())


@dataclass(frozen=True)
class SequenceLengths:
    """The sequences of a ragged pass.

    Attributes:
        new: number of new tokens of each sequence; 0 for one that does not take part.
        cached: number of entries of each sequence in the cache.
    """

    new: tuple[int, ...]
    cached: tuple[int, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """(new tokens, all entries) of each sequence that takes part."""
        return [(new, cached + new) for new, cached in zip(self.new, self.cached, strict=True) if new]

    def join(
        self, prefix: Float[Tensor, "batch kv_heads columns dim"], packed: Float[Tensor, "1 kv_heads tokens dim"]
    ) -> Float[Tensor, "1 kv_heads all_tokens dim"]:
        """The entries of each sequence, cached ones (left padded) before new ones, concatenated."""
        parts, columns = [], prefix.shape[2]
        # unbind and split, not indexing: its backward fills a tensor as large as the whole for each sequence.
        for old, new, cached in zip(prefix.unbind(0), packed[0].split(self.new, 1), self.cached, strict=True):
            if new.shape[1]:
                parts += [old[:, columns - cached :], new]
        return torch.cat(parts, 1)[None]


@dataclass(frozen=True)
class _SequenceMasks:
    """One attention mask per sequence, for an attention function named `base`."""

    lengths: SequenceLengths
    base: str
    masks: list[Any]


#: The sequences of the running pass, and the model's own attention function.
_running: ContextVar[tuple[SequenceLengths, str]] = ContextVar("sequences of the running pass")


@contextmanager
def ragged_attention(model: nn.Module, lengths: SequenceLengths) -> Iterator[None]:
    """Within it, `model` attends within each sequence of its one row. No other thread may run the model."""
    with replaced_attention(model, NAME, _running, lambda base: (lengths, base)):
        yield


def current_attention(model: nn.Module) -> AbstractContextManager[None]:
    """A context that restores the present attention of `model` later: for parts of a pass that are recomputed."""
    running = _running.get(None)
    return nullcontext() if running is None else ragged_attention(model, running[0])


def supports_ragged_attention(model: nn.Module) -> bool:
    """Whether a model looks up its attention in transformers' registry, and uses a function of a known kind."""
    config: Any = model.config
    has_registry = getattr(type(model), "_supports_attention_backend", False)
    return bool(has_registry) and config.get_text_config()._attn_implementation in ("eager", "sdpa")


def _masks(
    q_length: int, kv_length: int, q_offset: int = 0, kv_offset: int = 0, attention_mask: Any = None, **kwargs: Any
) -> _SequenceMasks:
    """The mask of each sequence: causal, with a window or in chunks, as the model asks."""
    lengths, base = _running.get()
    make: Callable[..., Any] = ALL_MASK_ATTENTION_FUNCTIONS[base]
    kwargs["batch_size"] = 1
    masks = [make(q_length=new, kv_length=all_, q_offset=all_ - new, **kwargs) for new, all_ in lengths.spans]
    return _SequenceMasks(lengths, base, masks)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: _SequenceMasks, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention within each sequence; arguments as of any attention function of transformers."""
    spans = attention_mask.lengths.spans
    new, all_ = ([span[n] for span in spans] for n in (0, 1))
    parts: Sequence[Sequence[Any]] = (query.split(new, 2), key.split(all_, 2), value.split(all_, 2))
    attend = attention_function(module, attention_mask.base)
    attended = [attend(module, *row, **kwargs)[0] for row in zip(*parts, attention_mask.masks, strict=True)]
    return torch.cat(attended, 1), None


def attention_function(module: nn.Module, name: str) -> Callable[..., tuple[Tensor, Any]]:
    """The attention function of a name; the eager one of a model is not in the registry."""
    registered: Callable[..., tuple[Tensor, Any]] | None = ALL_ATTENTION_FUNCTIONS.get(name)
    return registered or vars(sys.modules[type(module).__module__])["eager_attention_forward"]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _masks)

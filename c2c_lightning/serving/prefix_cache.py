"""Fused prompts of earlier answers, kept for conversations that grow; the least recently used are dropped first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from c2c_lightning.kv.layer import states_of
from c2c_lightning.model.fused_prompt import FusedPrompt

#: Shorter prompts, and shorter common prefixes, are computed again: batching them gains more.
MIN_TOKENS = 32


@dataclass(frozen=True)
class KeptPrompt:
    """A fused prompt with its answer.

    Attributes:
        group: model and choices that made it.
        ids: the receiver's tokens.
        fused: the caches, a batch of one.
        num_bytes: their size.
    """

    group: Hashable
    ids: tuple[int, ...]
    fused: FusedPrompt
    num_bytes: int


class PrefixCache:
    """Keeps fused prompts up to a number of bytes. Several threads may use it."""

    def __init__(self, max_bytes: int) -> None:
        """Keep nothing with `max_bytes` 0."""
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._kept: OrderedDict[int, KeptPrompt] = OrderedDict()
        self._lock, self._count = threading.Lock(), 0

    def __len__(self) -> int:
        """Number of kept prompts."""
        return len(self._kept)

    def find(self, group: Hashable, ids: Sequence[int]) -> tuple[FusedPrompt | None, int]:
        """The kept prompt with the longest common beginning, and its length in tokens.

        None where the beginning is shorter than half of the prompt: a row with a prefix is prefilled apart from its
        batch, which has to be worth it.
        """
        with self._lock:
            lengths = {key: _common(kept.ids, ids) for key, kept in self._kept.items() if kept.group == group}
            best = max(lengths, key=lengths.__getitem__, default=None)
            if best is None or lengths[best] < max(MIN_TOKENS, len(ids) // 2):
                return None, 0
            self._kept.move_to_end(best)
            return self._kept[best].fused, lengths[best]

    def keep(self, group: Hashable, fused: FusedPrompt) -> None:
        """Keep a fused prompt of one row, instead of those that it continues."""
        ids = tuple(fused.prompt.receiver.input_ids[0].tolist())
        kept = KeptPrompt(group, ids, fused, size_of(fused))
        if len(ids) < MIN_TOKENS or kept.num_bytes > self.max_bytes:
            return
        with self._lock:
            for key, old in list(self._kept.items()):
                if old.group == group and old.ids == ids[: len(old.ids)]:
                    self._drop(key)
            self._count += 1
            self._kept[self._count] = kept
            self.num_bytes += kept.num_bytes
            while self.num_bytes > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: int) -> None:
        self.num_bytes -= self._kept.pop(key).num_bytes


def size_of(fused: FusedPrompt) -> int:
    """Bytes of all caches of a fused prompt; tensors that share their memory count once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(fused)}
    return sum(storages.values())


def _tensors(fused: FusedPrompt) -> Iterator[Tensor]:
    stacks = [stack for stack in (fused.unfused_kv, fused.fused_kv, *fused.sharer_kv) if stack is not None]
    for stack in stacks:
        for layer in stack:
            yield layer.keys
            yield layer.values
    for states in (*(point.states for point in fused.checkpoints), *filter(None, map(states_of, stacks))):
        for state in states.layers.values():
            yield from (tensor for tensor in state.conv + state.recurrent if tensor is not None)


def _common(old: Sequence[int], new: Sequence[int]) -> int:
    """Length of the common beginning of two sequences.

    Example:
        >>> _common((1, 2, 3), (1, 2, 4, 5))
        2
    """
    return next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))

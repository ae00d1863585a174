"""Attention of many short sequences (branches) that continue few prefixes: each prefix is in memory once.

All branches of a pass are concatenated in one row, so that everything that a model computes token by token is computed
for all of them at once. The keys and values of a pass are those of all prefixes, followed by those of all new tokens.
Attention runs prefix by prefix, by the attention function of the model itself, looked up by name as in
`ragged_attention`. A batch with a copy of the prefix for each branch gives the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from c2c_lightning.ops.ragged_attention import attention_function
from c2c_lightning.ops.replaced_attention import replaced_attention

#: Name of the attention function in the registries of transformers.
NAME = "c2c_branches"


@dataclass(frozen=True)
class Branches:
    """Sequences of new tokens, each of which continues one of the same prefixes.

    Attributes:
        prefixes: number of entries of each prefix.
        new: number of new tokens of each branch.
        chosen: for each layer, the prefix that each branch continues.
    """

    prefixes: tuple[int, ...]
    new: tuple[int, ...]
    chosen: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Continuation:
    """The branches that continue one prefix in one layer.

    Attributes:
        prefix: number of the prefix.
        tokens: their new tokens among those of all branches.
        attends: whether a new token attends to another: to itself and to earlier ones of its branch.
    """

    prefix: int
    tokens: Int[Tensor, " new"]
    attends: Bool[Tensor, "new new"]


@lru_cache(maxsize=1024)
def _continuations(new: tuple[int, ...], chosen: tuple[int, ...]) -> tuple[_Continuation, ...]:
    branch = torch.arange(len(new)).repeat_interleave(torch.tensor(new))
    prefix_of_token, found = torch.tensor(chosen)[branch], []
    for prefix in sorted(set(chosen)):
        tokens = (prefix_of_token == prefix).nonzero()[:, 0]
        same_branch = branch[tokens][:, None] == branch[tokens]
        found.append(_Continuation(prefix, tokens, same_branch.tril()))
    return tuple(found)


@dataclass(frozen=True)
class _Running:
    """The running pass, in place of an attention mask.

    Attributes:
        groups: its branches, those of each group with prefixes of their own.
        base: name of the model's own attention function.
    """

    groups: tuple[Branches, ...]
    base: str


_running: ContextVar[_Running] = ContextVar("branches of the running pass")


@contextmanager
def branch_attention(model: nn.Module, groups: Sequence[Branches]) -> Iterator[None]:
    """Within it, `model` runs the branches of its one row. No other thread may run the model.

    The model has to support ragged attention, see `supports_ragged_attention`, and its windows have to be longer than
    every branch with its prefix: masks are causal only.
    """
    with replaced_attention(model, NAME, _running, lambda base: _Running(tuple(groups), base)):
        yield


def _masks(*args: object, **kwargs: object) -> _Running:
    return _running.get()


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: _Running, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of all branches; arguments as of any attention function of transformers."""
    groups, layer = attention_mask.groups, int(module.layer_idx)  # type: ignore[arg-type]
    attend = attention_function(module, attention_mask.base)
    new = [sum(group.new) for group in groups]
    lengths = [*(length for group in groups for length in group.prefixes), *new]
    keys, values = iter(key.split(lengths, 2)), iter(value.split(lengths, 2))
    # All prefixes first: the iterators then stand at the new tokens of the first group.
    prefixes = [[(next(keys), next(values)) for _ in group.prefixes] for group in groups]
    attended = []
    for group, of_group, q, k, v in zip(groups, prefixes, query.split(new, 2), keys, values, strict=True):
        run = _ContinuedGroup(q, k, v, lambda *row: attend(module, *row, **kwargs)[0])
        attended.append(run.attended(of_group, _continuations(group.new, group.chosen[layer])))
    return torch.cat(attended, 1), None


@dataclass(frozen=True)
class _ContinuedGroup:
    """Queries, keys and values of the new tokens of one group, (1, heads, new, dim), and the attention function."""

    query: Tensor
    key: Tensor
    value: Tensor
    attend: Callable[..., Tensor]

    def attended(self, prefixes: Sequence[tuple[Tensor, Tensor]], parts: Sequence[_Continuation]) -> Tensor:
        """Attention outputs, (1, new, heads, dim)."""
        outputs = [self._output(*prefixes[part.prefix], part) for part in parts]
        if len(parts) == 1:
            return outputs[0]
        order = torch.cat([part.tokens for part in parts]).argsort().to(self.query.device)
        return torch.cat(outputs, 1).index_select(1, order)

    def _output(self, prefix_key: Tensor, prefix_value: Tensor, part: _Continuation) -> Tensor:
        tokens, attends = part.tokens.to(self.query.device), part.attends.to(self.query.device)
        query, key, value = (x.index_select(2, tokens) for x in (self.query, self.key, self.value))
        seen = F.pad(attends, (prefix_key.shape[2], 0), value=True)
        # Numbers, not booleans: an eager attention function adds its mask.
        mask = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
        return self.attend(
            query, torch.cat([prefix_key, key], 2), torch.cat([prefix_value, value], 2), mask[None, None]
        )


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _masks)

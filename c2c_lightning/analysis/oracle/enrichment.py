"""Cache enrichment (paper, Eq. 2): a question's cache, computed behind shots whose entries are then deleted.

    few-shot        [header][shots][question]     the question attends to the shots, and so does the answer
    enriched        [header]       [question]     the same entries without the shots', at the same positions
    direct          [header][question]            the question has never attended to a shot

Layers with direct entries and layers with enriched ones can be mixed: both have as many entries, and the direct prompt
is computed at positions at which its question has the positions of the few-shot prompt. Rotary attention depends on
differences of positions alone, so the direct prompt's answer is that of the same prompt from position 0.

Axes: L layers, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from c2c_lightning.kv.layer import LayerKV, LayerStack, append_kv, select_rows
from c2c_lightning.model.frozen_lm import FrozenLM

Ids = Sequence[int]
"""Token ids of a part of a prompt."""


@dataclass(frozen=True)
class ContextCache:
    """Caches of the part of a prompt that the questions of a subject share.

    Attributes:
        entries: header and shots, at positions from 0.
        header: the header alone, at the positions in front of a question of the few-shot prompt.
    """

    entries: LayerStack
    header: LayerStack

    @property
    def num_tokens(self) -> int:
        """Tokens of header and shots."""
        return self.entries[0].num_tokens

    @property
    def num_header(self) -> int:
        """Tokens of the header."""
        return self.header[0].num_tokens

    @property
    def num_bytes(self) -> int:
        """Memory."""
        return _num_bytes([*self.entries, *self.header])


@dataclass(frozen=True)
class QuestionCache:
    """Caches of one question, at its positions in the few-shot prompt.

    Attributes:
        context: caches of what is in front of it.
        direct: entries of question and cue ("Answer:"), computed behind the header.
        enriched: the same, computed behind header and shots.
        num_cue: tokens of the cue.
    """

    context: ContextCache
    direct: LayerStack
    enriched: LayerStack
    num_cue: int

    @property
    def num_tokens(self) -> int:
        """Tokens of question and cue."""
        return self.enriched[0].num_tokens

    @property
    def num_bytes(self) -> int:
        """Memory of its own entries, without the context's."""
        return _num_bytes([*self.direct, *self.enriched])

    @property
    def num_question(self) -> int:
        """Tokens of the question without its cue."""
        return self.num_tokens - self.num_cue

    @property
    def few_shot(self) -> LayerStack:
        """The cache of the few-shot prompt up to the cue."""
        return append_kv(self.context.entries, _tokens(self.enriched, 0, self.num_question))


@dataclass(frozen=True)
class Deletion:
    """Which entries of the few-shot prefill an oracle keeps, and where the answer begins.

    Attributes:
        name: name in reports.
        sink_tokens: how many of the first entries are kept; None for exactly the header.
        repeats_cue: whether the question's entries include those of the cue, which is then run a second time.
    """

    name: str
    sink_tokens: int | None = None
    repeats_cue: bool = False

    def num_kept(self, num_header: int, num_context: int) -> int:
        """Number of entries that are kept of those in front of the question (header and shots)."""
        return num_header if self.sink_tokens is None else min(self.sink_tokens, num_context)

    def next_position(self, question: QuestionCache) -> int:
        """Position of the first token after the cache: that of the few-shot prompt, positions are kept."""
        return question.context.num_tokens + self._num_question(question)

    def num_tokens(self, question: QuestionCache) -> int:
        """Length of the cache."""
        context = question.context
        return self.num_kept(context.num_header, context.num_tokens) + self._num_question(question)

    def prefixes(self, question: QuestionCache) -> tuple[LayerStack, ...]:
        """The cache without enriched layers, and with all layers enriched."""
        context, end = question.context, self._num_question(question)
        kept = _tokens(context.entries, 0, self.num_kept(context.num_header, context.num_tokens))
        # The direct prompt's header is in front of its question; released sinks are the same in all layers.
        before = context.header if self.sink_tokens is None else kept
        parts = ((before, question.direct), (kept, question.enriched))
        return tuple(append_kv(header, _tokens(entries, 0, end)) for header, entries in parts)

    def chosen(self, enriched: Bool[Tensor, "subsets layers"]) -> Int[Tensor, "subsets layers"]:
        """Which of `prefixes` each layer of a subset has."""
        return enriched.long()

    def _num_question(self, question: QuestionCache) -> int:
        return question.num_tokens if self.repeats_cue else question.num_question


class NoDeletion:
    """Keeps all shots: the cache of the few-shot prompt."""

    name = "few_shot"

    def next_position(self, question: QuestionCache) -> int:
        """Position of the first token after the cache."""
        return self.num_tokens(question)

    def num_tokens(self, question: QuestionCache) -> int:
        """Length of the cache."""
        return question.context.num_tokens + question.num_question

    def prefixes(self, question: QuestionCache) -> tuple[LayerStack, ...]:
        """The cache alone."""
        return (question.few_shot,)

    def chosen(self, enriched: Bool[Tensor, "subsets layers"]) -> Int[Tensor, "subsets layers"]:
        """The cache in all layers of all subsets: shots are entries of all layers."""
        return torch.zeros_like(enriched, dtype=torch.long)


CLEAN = Deletion("clean")
"""All entries of the shots are deleted, and the cue is run once, behind the deletion."""

AS_RELEASED = Deletion("as_released", sink_tokens=15, repeats_cue=True)
"""As the released `standard_kvcache_del.py`: 15 sink entries are kept, and the cue is run a second time."""

DELETIONS = (CLEAN, AS_RELEASED)


def mixed_caches(
    kind: Deletion | NoDeletion, question: QuestionCache, enriched: Bool[Tensor, "subsets layers"]
) -> LayerStack:
    """The cache of a question for each subset of enriched layers, (subsets, kv_heads, T, head_dim) per layer."""
    layers = zip(*kind.prefixes(question), strict=True)
    together = [LayerKV.merge(prefixes, torch.cat) for prefixes in layers]
    return [layer.rows(chosen) for layer, chosen in zip(together, kind.chosen(enriched).T, strict=True)]


@torch.no_grad()
def prefill_context(lm: FrozenLM, header: Ids, shots: Ids) -> ContextCache:
    """The caches of header and shots, computed once for all questions of a subject."""
    entries = lm.prefill(*_row([*header, *shots], 0))
    return ContextCache(entries, lm.prefill(*_row(header, len(shots))))


@torch.no_grad()
def prefill_questions(lm: FrozenLM, context: ContextCache, questions: Sequence[Ids], cue: Ids) -> list[QuestionCache]:
    """The caches of several questions behind one context, in two passes: behind the header, and behind the shots."""
    lengths = [len(question) + len(cue) for question in questions]
    # Padding on the right needs no mask: no real token attends to it, and its entries are cut off.
    ids = torch.zeros(len(questions), max(lengths), dtype=torch.long)
    for row, question in zip(ids, questions, strict=True):
        row[: len(question) + len(cue)] = torch.tensor([*question, *cue])
    positions = (context.num_tokens + torch.arange(ids.shape[1])).expand_as(ids)
    rows = torch.zeros(len(questions), dtype=torch.long, device=lm.device)
    direct, enriched = (
        lm.prefill(ids, None, positions, select_rows(prefix, rows)) for prefix in (context.header, context.entries)
    )
    return [
        QuestionCache(context, _part(direct, row, length), _part(enriched, row, length), len(cue))
        for row, length in enumerate(lengths)
    ]


def single_layers(num_layers: int) -> Bool[Tensor, "subsets layers"]:
    """The subsets none, all, and each layer alone, in this order, (2 + L, L)."""
    none_and_all = torch.tensor([[False], [True]]).expand(2, num_layers)
    return torch.cat([none_and_all, torch.eye(num_layers, dtype=torch.bool)])


def _row(ids: Ids, first: int) -> tuple[Int[Tensor, "1 tokens"], None, Int[Tensor, "1 tokens"]]:
    """Arguments of a prefill: ids and positions of one row without padding."""
    return torch.tensor([list(ids)], dtype=torch.long), None, torch.arange(first, first + len(ids))[None]


def _tokens(kv: LayerStack, begin: int, end: int) -> LayerStack:
    return [layer.tokens(begin, end) for layer in kv]


def _num_bytes(kv: LayerStack) -> int:
    return sum(part.numel() * part.element_size() for layer in kv for part in (layer.keys, layer.values))


def _part(kv: LayerStack, row: int, length: int) -> LayerStack:
    """One row up to its padding, as a copy, so that the batch's memory is freed."""
    return [layer.map(lambda entries: entries[row : row + 1, :, :length].clone()) for layer in kv]

"""Kept prompts: going on from one gives what reading the whole gives, whatever was kept, and runs only what is new."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.errors import PromptError
from c2c_lightning.kv.cache import cache_entries
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from tests.model.test_fusion_modes import MODES, SETTINGS, build

ORDERS = ["sectioned", "one_pass"]
DOCUMENT = 24


def tokens(count: int, seed: int) -> Tensor:
    return torch.randint(3, 300, (1, count), generator=torch.Generator().manual_seed(seed))


def questions(lengths: tuple[int, ...] = (7, 4, 5), document: int = 0) -> PromptBatch:
    """Left-padded questions about one document."""
    rows = [torch.cat([tokens(DOCUMENT, document), tokens(n, 10 + n)], 1) for n in lengths]
    width = max(row.shape[1] for row in rows)
    ids = torch.cat([torch.nn.functional.pad(row, (width - row.shape[1], 0)) for row in rows])
    return PromptBatch.shared(ids, (ids > 0).long(), num_sharers=2)


@contextmanager
def counted(lm: FrozenLM) -> Iterator[list[int]]:
    """The numbers of columns that a model is run over."""
    counts, prefill = [], lm.prefill

    def counting(input_ids: Tensor, *args: object, **kwargs: object) -> LayerStack:
        counts.append(input_ids.shape[1])
        return prefill(input_ids, *args, **kwargs)

    lm.__dict__["prefill"] = counting
    try:
        yield counts
    finally:
        del lm.__dict__["prefill"]


def same_entries(model: C2CModel, prompt: PromptBatch, kept: PromptBatch) -> None:
    """The cache that goes on from a kept prompt is the one of reading all, at every real token."""
    resumed = cache_entries(model.fuse(prompt, prefix=model.prefill(kept)))
    real = prompt.receiver.mask[:, :-1].bool()
    for mine, whole in zip(resumed, cache_entries(model.fuse(prompt)), strict=True):
        for a, b in ((mine.keys, whole.keys), (mine.values, whole.values)):
            torch.testing.assert_close(a.transpose(1, 2)[real], b.transpose(1, 2)[real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("span_order", ORDERS)
@pytest.mark.parametrize("mode", MODES)
def test_many_questions_about_one_document(mode: str, span_order: str) -> None:
    model = build("qwen3", "llama", mode, 2, span_order=span_order)
    prompt, kept = questions(), questions((6,))
    same_entries(model, prompt, kept)
    prefix = model.prefill(kept)
    with counted(model.receiver) as receiver, counted(model.sharers[1]) as sharer:
        cache = model.fuse(prompt, prefix=prefix)
    assert cache.get_seq_length() == prompt.num_receiver_tokens - 1
    # The question that is padded most lays the document's end that many columns further to the right.
    assert sum(receiver) == 7 - 1
    assert sum(sharer) == 7 - (mode == "prefill")
    assert torch.equal(model.generate(prompt, prefix=prefix, **SETTINGS), model.generate(prompt, **SETTINGS))
    # The kept prompt is as it was, and serves again.
    assert torch.equal(model.generate(kept, prefix=prefix, **SETTINGS), model.generate(kept, **SETTINGS))


def random_prompt(g: torch.Generator, length: int) -> PromptBatch:
    """A prompt of random spans; each sharer has other tokens, and more or fewer."""
    spans = torch.randint(0, 4, (1, length), generator=g).repeat_interleave(3, 1)[:, :length]
    sharers = []
    for number, extra in enumerate((2, -1)):
        ids = torch.randint(3, 300, (1, length + extra), generator=g)
        index = (torch.arange(length)[None] + extra).clamp(0, length + extra - 1)
        sharers.append(SharerTokens(ids, source_index=index.masked_fill((spans >> number) % 2 == 0, -1)))
    return PromptBatch(TokenBatch(torch.randint(3, 300, (1, length), generator=g)), tuple(sharers))


def changed(prompt: PromptBatch, g: torch.Generator) -> PromptBatch:
    """The same prompt with random changes from random places on: tokens, spans, what is read."""

    def draw(end: int) -> int:
        return int(torch.randint(0, end, (1,), generator=g))

    length = prompt.num_receiver_tokens
    other, cut = random_prompt(g, length), [draw(2 * length) for _ in range(5)]

    def mixed(old: Tensor, new: Tensor, at: int) -> Tensor:
        return torch.cat([old[:, :at], new[:, at:]], 1)

    sharers = [
        SharerTokens(mixed(a.input_ids, b.input_ids, at), source_index=mixed(a.index, b.index, where))
        for a, b, at, where in zip(prompt.sharers, other.sharers, cut[1:3], cut[3:], strict=True)
    ]
    receiver = TokenBatch(mixed(prompt.receiver.input_ids, other.receiver.input_ids, cut[0]))
    return PromptBatch(receiver, tuple(sharers))


def padded(prompts: list[PromptBatch]) -> PromptBatch:
    """Prompts as one batch, the first not padded, each further one more."""

    def moved(rows: list[Tensor], fill: int) -> Tensor:
        cut = [row[:, : row.shape[1] - n] for n, row in enumerate(rows)]
        return torch.cat([torch.nn.functional.pad(row, (n, 0), value=fill) for n, row in enumerate(cut)])

    sharers = []
    for number in range(2):
        parts = [p.sharers[number] for p in prompts]
        ids, mask = moved([p.input_ids for p in parts], 0), moved([p.mask for p in parts], 0)
        index = moved([torch.where(p.index >= 0, p.index + n, -1) for n, p in enumerate(parts)], -1)
        sharers.append(SharerTokens(ids, mask, source_index=index.masked_fill(index >= ids.shape[1], -1)))
    ids, mask = moved([p.receiver.input_ids for p in prompts], 0), moved([p.receiver.mask for p in prompts], 0)
    return PromptBatch(TokenBatch(ids, mask), tuple(sharers))


@pytest.mark.parametrize("span_order", ORDERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("receiver", ["qwen3", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_any_prompt_after_any_other(receiver: str, mode: str, span_order: str) -> None:
    model, g = build(receiver, "llama", mode, 2, span_order=span_order), torch.Generator().manual_seed(1)
    with counted(model.receiver) as counts:
        for _ in range(8):
            kept = random_prompt(g, 20)
            same_entries(model, changed(kept, g), kept)
            same_entries(model, padded([changed(kept, g) for _ in range(3)]), kept)
    # Each of the 16 comparisons keeps 19 columns, reads 19, and runs what it must of these when it goes on.
    assert 16 * 19 * 2 < sum(counts) < 16 * 19 * 2.8


def test_whatever_entries_depend_on_besides_tokens() -> None:
    """Gates, choices, sharers, caches from elsewhere: a kept prompt is not taken for what it is not."""
    model, prompt = build("qwen3", "llama", "prefill", 2), questions((5,))
    prefix = model.prefill(prompt)

    def runs(**arguments: object) -> int:
        with counted(model.receiver) as counts:
            model.fuse(prompt, prefix=prefix, **arguments)
        return sum(counts)

    assert runs() == 0
    assert runs(active_sharers=[0]) == runs(sharer_kv=model.prefill_sharers(prompt)) == DOCUMENT + 4
    model.fuser.config = replace(model.fuser.config, sharer_order="parallel")
    assert runs() == DOCUMENT + 4
    model.fuser.config = replace(model.fuser.config, sharer_order="sequential")
    assert runs() == 0
    model.fuser.force_gates(is_open=False)
    assert runs() == DOCUMENT + 4
    prefix = model.prefill(prompt)
    assert runs() == 0
    model.fuser.train()
    assert runs() == DOCUMENT + 4


def test_one_prompt_is_kept() -> None:
    model, prompt = build("qwen3", "llama", "prefill", 2), questions()
    with pytest.raises(PromptError, match="one prompt"):
        model.fuse(prompt, prefix=model.prefill(prompt))

"""Caches with deleted shots, against one pass over the few-shot prompt in which the shots are masked."""

import pytest
import torch
from torch import Tensor

from c2c_lightning.analysis.oracle.enrichment import (
    AS_RELEASED,
    CLEAN,
    DELETIONS,
    Deletion,
    QuestionCache,
    mixed_caches,
    prefill_context,
    prefill_questions,
    single_layers,
)
from c2c_lightning.kv.cache import prefix_cache
from c2c_lightning.kv.layer import LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

HEADER, SHOTS = [5, 6, 7, 8], list(range(20, 50))
QUESTIONS, CUE = [[60, 61, 62, 63, 64, 65], [70, 71, 72]], [9, 10]
FAMILIES = ["qwen2", "qwen3", "llama", "phi3", "smollm3", "olmo2"]


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request: pytest.FixtureRequest) -> FrozenLM:
    return load_frozen(tiny_pair(request.param))


def caches(lm: FrozenLM) -> list[QuestionCache]:
    return prefill_questions(lm, prefill_context(lm, HEADER, SHOTS), QUESTIONS, CUE)


def continued(lm: FrozenLM, kv: LayerStack, position: int, ids: list[int]) -> Tensor:
    """Logits of tokens behind each row of a cache."""
    rows = len(kv[0].keys)
    return lm.model(
        input_ids=torch.tensor([ids]).expand(rows, -1),
        position_ids=(position + torch.arange(len(ids))).expand(rows, -1),
        past_key_values=prefix_cache(kv),
    ).logits


def masked(lm: FrozenLM, ids: list[int], num_visible: int, kept: int, hidden_until: int) -> Tensor:
    """Logits of one pass in which the tokens from `num_visible` on do not attend to those of [kept, hidden_until)."""
    allowed = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    allowed[num_visible:, kept:hidden_until] = False
    bias = torch.zeros(1, 1, len(ids), len(ids)).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return lm.model(
        input_ids=torch.tensor([ids]), attention_mask=bias, position_ids=torch.arange(len(ids))[None]
    ).logits


@torch.no_grad()
@pytest.mark.parametrize("deletion", DELETIONS, ids=lambda deletion: deletion.name)
def test_deleted_shots_are_shots_masked_for_the_cue(lm: FrozenLM, deletion: Deletion) -> None:
    context = len(HEADER) + len(SHOTS)
    for question, cache in zip(QUESTIONS, caches(lm), strict=True):
        every = single_layers(lm.geometry.num_layers)[1:2]
        found = continued(lm, mixed_caches(deletion, cache, every), deletion.next_position(cache), CUE)
        prompt = [*HEADER, *SHOTS, *question, *(CUE if deletion.repeats_cue else []), *CUE]
        kept = deletion.num_kept(len(HEADER), context)
        expected = masked(lm, prompt, len(prompt) - len(CUE), kept, context)[:, -len(CUE) :]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        unmasked = masked(lm, prompt, len(prompt), 0, 0)[:, -len(CUE) :]
        assert (found - unmasked).abs().max() > 1e-3


@torch.no_grad()
def test_without_enriched_layers_the_clean_cache_is_the_direct_prompt(lm: FrozenLM) -> None:
    for question, cache in zip(QUESTIONS, caches(lm), strict=True):
        none = single_layers(lm.geometry.num_layers)[:1]
        found = continued(lm, mixed_caches(CLEAN, cache, none), CLEAN.next_position(cache), CUE)
        expected = lm.model(torch.tensor([[*HEADER, *question, *CUE]])).logits[:, -len(CUE) :]
        # Other positions: rotations by larger angles differ in the last bits.
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@torch.no_grad()
def test_the_few_shot_cache_is_the_plain_few_shot_prompt(lm: FrozenLM) -> None:
    for question, cache in zip(QUESTIONS, caches(lm), strict=True):
        found = continued(lm, cache.few_shot, cache.few_shot[0].num_tokens, CUE)
        expected = lm.model(torch.tensor([[*HEADER, *SHOTS, *question, *CUE]])).logits[:, -len(CUE) :]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_only_the_chosen_layers_have_enriched_entries(lm: FrozenLM) -> None:
    cache = caches(lm)[0]
    subsets = single_layers(lm.geometry.num_layers)
    for deletion in DELETIONS:
        mixed = mixed_caches(deletion, cache, subsets)
        for layer, kv in enumerate(mixed):
            for row, subset in enumerate(subsets):
                own = cache.enriched if subset[layer] else cache.direct
                end = len(QUESTIONS[0]) + (len(CUE) if deletion.repeats_cue else 0)
                assert torch.equal(kv.values[row, :, -end:], own[layer].values[0, :, :end])


def test_as_released_keeps_fifteen_entries_of_the_context() -> None:
    assert [AS_RELEASED.num_kept(header, context) for header, context in ((4, 34), (20, 90), (4, 9))] == [15, 15, 9]


@torch.no_grad()
def test_a_prompt_without_header_has_nothing_in_front_of_its_question() -> None:
    lm = load_frozen(tiny_pair("qwen3"))
    [cache] = prefill_questions(lm, prefill_context(lm, [], SHOTS), QUESTIONS[:1], CUE)
    none = single_layers(lm.geometry.num_layers)[:1]
    found = continued(lm, mixed_caches(CLEAN, cache, none), CLEAN.next_position(cache), CUE)
    expected = lm.model(torch.tensor([[*QUESTIONS[0], *CUE]])).logits[:, -len(CUE) :]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)

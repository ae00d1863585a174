"""Effective rank, and the entries that it is computed of."""

import math

import pytest
import torch

from c2c_lightning.analysis.effective_rank import effective_rank, rank_report
from c2c_lightning.analysis.fused_entries import FusedEntries, TokenEntries, collect_entries
from c2c_lightning.errors import DataError
from c2c_lightning.kv.cache import cache_entries
from tests.evaluation.conftest import fused_pair

TEXTS = ["What is the capital of Arlen?", "Name a city.", "Why does the river bend? The answer is 12."]
QUESTIONS = [[{"role": "user", "content": text}] for text in TEXTS]


def test_rank_of_known_spectra() -> None:
    assert effective_rank(torch.outer(torch.arange(1.0, 6.0), torch.ones(3))) == pytest.approx(1.0)
    assert effective_rank(torch.eye(7)) == pytest.approx(7.0)
    # Singular values 3 and 1: shares 3/4 and 1/4.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy), abs=1e-6)


def test_rank_does_not_depend_on_scale_or_rotation() -> None:
    matrix = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    assert effective_rank(5 * matrix @ rotation) == pytest.approx(effective_rank(matrix), abs=1e-3)


def test_entries_are_those_of_the_fused_tokens() -> None:
    model = fused_pair()
    prompt = model.encode(QUESTIONS)
    index = prompt.sharers[0].index[:, :-1]
    pairs = (index >= 0).nonzero().tolist()
    entries = collect_entries(model, [prompt], len(pairs))
    fused, alone = cache_entries(model.fuse(prompt)), cache_entries(model.fuse(prompt, active_sharers=()))
    theirs = model.prefill_sharers(prompt)[0]
    assert theirs is not None
    for n, layer in enumerate(entries.layers):
        source = model.fuser.sharers[0].layer_map[layer]
        assert source is not None
        for k, (row, column) in enumerate(pairs):
            pairs_of_entries = (
                (entries.fused.keys[n][k], fused[layer].keys[row, :, column]),
                (entries.receiver.values[n][k], alone[layer].values[row, :, column]),
                (entries.sharer.keys[n][k], theirs[source].keys[row, :, index[row, column]]),
            )
            for collected, cached in pairs_of_entries:
                torch.testing.assert_close(collected, cached.flatten(), atol=1e-5, rtol=1e-5)


def test_too_few_tokens_are_refused() -> None:
    model = fused_pair()
    with pytest.raises(DataError, match="fused tokens, but 1000 are needed"):
        collect_entries(model, [model.encode(QUESTIONS)], 1000)


def test_samples_are_disjoint_and_give_a_spread() -> None:
    first, second = torch.eye(4), torch.ones(4, 4)
    cache = TokenEntries([torch.cat([first, second])], [torch.cat([first, first])])
    report = rank_report(FusedEntries([0], cache, cache, cache), samples=2)
    assert report.ranks["fused"]["keys"] == [pytest.approx(2.5)]
    assert report.spread["fused"]["keys"] == pytest.approx(3 / math.sqrt(2))
    assert report.spread["fused"]["values"] == pytest.approx(0.0)
    assert report.bound["fused"]["keys"] == 4
    assert report.to_json()["mean"]["receiver"]["values"] == pytest.approx(4.0)

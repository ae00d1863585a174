"""Entries of aligned tokens, and caches with other entries in their place."""

from dataclasses import replace

import pytest
import torch

from c2c_lightning.analysis.transform.model_pair import PARTS, ModelPair, aligned_layers
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.errors import LayerMapError, UnsupportedModelError
from c2c_lightning.model.load_lm import load_frozen
from tests.analysis.transform.pairs import chat_batch, tiny_model_pair
from tests.hybrids import frozen_hybrid
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize("sharer", ["llama", "gemma3", "smollm3"])
def test_entries_are_those_of_each_models_own_pass(sharer: str) -> None:
    pair = tiny_model_pair(sharer=sharer)
    prompt = chat_batch(pair).prompt
    entries = pair.entries(prompt)
    expected = [
        (row, column, int(source))
        for row in range(len(prompt))
        for column, source in enumerate(prompt.sharers[0].index[row, :-1])
        if source >= 0
    ]
    found = torch.stack([entries.tokens.row, entries.tokens.token, entries.tokens.source], 1).tolist()
    assert [tuple(place) for place in found] == expected
    for row in range(len(prompt)):
        one = prompt.select([row])
        sides = ((pair.receiver, one.receiver, 0), (pair.sharer, one.sharers[0], 1))
        for lm, tokens, side in sides:
            kv = lm.prefill_tokens(tokens, tokens.input_ids.shape[1])
            mine = [place for place in expected if place[0] == row]
            columns = [place[1 + side] for place in mine]
            given = (entries.receiver, entries.sharer)[side]
            is_row = entries.tokens.row == row
            for index, layers in enumerate(pair.layers):
                layer = kv[layers[side]]
                assert torch.allclose(
                    given["keys"][index][is_row], layer.keys[0, :, columns].transpose(0, 1), atol=1e-4
                )
                values = layer.values[0, :, columns].transpose(0, 1)
                assert torch.allclose(given["values"][index][is_row], values, atol=1e-4)


def test_keys_without_position_do_not_depend_on_the_position() -> None:
    pair = tiny_model_pair("llama", "qwen3")
    prompt = chat_batch(pair).prompt

    def moved(tokens: TokenBatch) -> TokenBatch:
        return replace(tokens, position_ids=tokens.positions + 7)

    later = PromptBatch(moved(prompt.receiver), tuple(moved(sharer) for sharer in prompt.sharers))  # type: ignore[misc]
    here, there = pair.entries(prompt), pair.entries(later)
    for side in ("sharer", "receiver"):
        one, other = getattr(here, side), getattr(there, side)
        # Of first layers: later ones see the same relative positions, but rounding adds up.
        assert torch.allclose(one["position_free_keys"][0], other["position_free_keys"][0], atol=1e-4)
        assert not torch.allclose(one["keys"][0], other["keys"][0], atol=1e-2)


@pytest.mark.parametrize("is_position_free", [False, True])
def test_own_entries_in_their_place_change_nothing(is_position_free: bool) -> None:
    pair = tiny_model_pair()
    entries = pair.entries(chat_batch(pair).prompt)
    keys = entries.receiver["position_free_keys" if is_position_free else "keys"]
    stack = pair.replaced(entries, keys, entries.receiver["values"], is_position_free)
    for own, same in zip(entries.receiver_kv, stack, strict=True):
        assert torch.allclose(own.keys, same.keys, atol=1e-5)
        assert torch.equal(own.values, same.values)


def test_only_entries_of_aligned_tokens_and_layers_are_replaced() -> None:
    pair = tiny_model_pair(only_last=True)
    entries = pair.entries(chat_batch(pair).prompt)
    zeros = {part: [torch.zeros_like(x) for x in entries.receiver[part]] for part in PARTS}
    stack = pair.replaced(entries, zeros["keys"], zeros["values"], False)
    (last, _) = pair.layers[-1]
    for n, (own, other) in enumerate(zip(entries.receiver_kv, stack, strict=True)):
        is_zero = (other.keys == 0).all(-1).all(1)
        assert bool(is_zero[entries.tokens.row, entries.tokens.token].all()) == (n == last)
        rest = torch.ones_like(is_zero)
        rest[entries.tokens.row, entries.tokens.token] = False
        assert torch.equal(own.keys.transpose(1, 2)[rest], other.keys.transpose(1, 2)[rest])


def test_a_batch_without_aligned_tokens_has_no_entries() -> None:
    pair = tiny_model_pair()
    prompt = chat_batch(pair).prompt
    index = torch.full_like(prompt.sharers[0].index, -1)
    nothing = PromptBatch(prompt.receiver, (replace(prompt.sharers[0], source_index=index),))
    entries = pair.entries(nothing)
    assert len(entries.tokens) == 0
    assert [x.shape[0] for x in entries.sharer["values"]] == [0] * len(pair.layers)


def test_one_sharer_layer_for_several_receiver_layers_is_refused() -> None:
    receiver, sharer = (load_frozen((tiny_model(f), tiny_tokenizer())) for f in ("qwen3", "llama"))
    with pytest.raises(LayerMapError, match=r"sharer layer 0 with 3 receiver layers.*skip"):
        aligned_layers(receiver, sharer, "terminal")
    assert aligned_layers(receiver, sharer, "skip") == [(2, 0), (3, 1)]
    assert aligned_layers(receiver, sharer, "skip", only_last=True) == [(3, 1)]


@pytest.mark.parametrize("place", ["receiver", "sharer"])
def test_hybrids_are_refused(place: str) -> None:
    ordinary = load_frozen((tiny_model(), tiny_tokenizer()))
    models = {"receiver": ordinary, "sharer": ordinary, place: frozen_hybrid("qwen3_next")}
    with pytest.raises(UnsupportedModelError, match="2 of its 4 layers only"):
        ModelPair(models["receiver"], models["sharer"], [(0, 0)])

"""Each cache layer by itself: which entries attention sees, and which are kept."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.cache import (
    CACHE_ARGUMENT,
    EditedLayer,
    EditedPrefixLayer,
    PrefixLayer,
    cache_entries,
    dynamic_cache,
    edited_prefix_cache,
    is_replayable,
    prefix_cache,
)
from c2c_lightning.kv.layer import LayerKV, LayerStack, append_kv
from c2c_lightning.kv.prefill import Prefill, PrefillDone, RecordingLayer
from tests.tiny import tiny_model


def entries(tokens: int, batch: int = 2) -> LayerKV:
    return LayerKV(torch.randn(batch, 3, tokens, 4), torch.randn(batch, 3, tokens, 5))


def doubled(layer: int, new: LayerKV) -> LayerKV:
    return LayerKV(new.keys * (2 + layer), new.values)


@pytest.mark.parametrize("tokens", [0, 6])
def test_a_prefix_layer_returns_prefix_and_new_entries_and_keeps_neither(tokens: int) -> None:
    prefix, new = entries(tokens), entries(2)
    layer = PrefixLayer(prefix)
    for _ in range(2):
        keys, values = layer.update(new.keys, new.values)
        assert torch.equal(keys, torch.cat([prefix.keys, new.keys], 2))
        assert torch.equal(values, torch.cat([prefix.values, new.values], 2))
    assert layer.get_seq_length() == tokens


def test_gradients_reach_the_prefix() -> None:
    prefix = LayerKV(torch.randn(1, 3, 6, 4, requires_grad=True), torch.randn(1, 3, 6, 4))
    keys, _ = PrefixLayer(prefix).update(torch.randn(1, 3, 1, 4), torch.randn(1, 3, 1, 4))
    keys.sum().backward()
    assert prefix.keys.grad is not None


def test_a_join_replaces_concatenation() -> None:
    prefix, new = entries(6), entries(2)
    keys, _ = PrefixLayer(prefix, lambda old, added: torch.cat([added, old], 2)).update(new.keys, new.values)
    assert torch.equal(keys, torch.cat([new.keys, prefix.keys], 2))


def test_a_recording_layer_records_and_ends_the_pass_at_the_last_layer() -> None:
    record: LayerStack = []
    new = entries(2)
    RecordingLayer(None, record, last=False).update(new.keys, new.values)
    with pytest.raises(PrefillDone):
        RecordingLayer(None, record, last=True).update(new.keys, new.values)
    assert [layer.keys is new.keys for layer in record] == [True, True]


def test_an_edited_prefix_layer_edits_the_new_entries_only() -> None:
    prefix, new = entries(6), entries(2)
    keys, values = EditedPrefixLayer(prefix, 1, doubled).update(new.keys, new.values)
    assert torch.equal(keys, torch.cat([prefix.keys, new.keys * 3], 2))
    assert torch.equal(values, torch.cat([prefix.values, new.values], 2))


@pytest.mark.parametrize("tokens", [0, 6])
def test_an_edited_layer_keeps_the_edited_entries(tokens: int) -> None:
    prefix, first, second = entries(tokens), entries(2), entries(1)
    layer = EditedLayer(prefix, 0, doubled)
    layer.update(first.keys, first.values)
    keys, _ = layer.update(second.keys, second.values)
    assert torch.equal(keys, torch.cat([prefix.keys, first.keys * 2, second.keys * 2], 2))
    assert layer.get_seq_length() == tokens + 3


def test_caches_of_layers_and_their_entries() -> None:
    kv = [entries(6), entries(6)]
    assert [layer.keys is own.keys for layer, own in zip(cache_entries(prefix_cache(kv)), kv, strict=True)] == [
        True
    ] * 2
    grown = dynamic_cache(kv)
    new = entries(1)
    grown.update(new.keys, new.values, 0)
    assert grown.get_seq_length() == 7
    assert kv[0].num_tokens == 6
    assert isinstance(dynamic_cache([entries(0)]), DynamicCache)
    assert dynamic_cache([entries(0)]).get_seq_length() == 0


def test_only_caches_that_no_pass_changes_may_be_read_twice() -> None:
    kv = [entries(6)]
    assert is_replayable(prefix_cache(kv))
    assert is_replayable(edited_prefix_cache(kv, doubled))
    assert not is_replayable(dynamic_cache(kv))
    assert not is_replayable(None)


def test_a_prefill_gives_the_entries_of_the_whole_pass_for_the_layers_that_are_needed() -> None:
    model, ids = tiny_model("qwen3"), torch.arange(3, 10)[None]
    whole = cache_entries(model(ids, use_cache=True).past_key_values)
    positions = torch.arange(7)[None]
    first = Prefill(model, 2).run(ids[:, :4], torch.ones(1, 4).long(), positions[:, :4])
    rest = Prefill(model, 2).run(ids[:, 4:], torch.ones(1, 7).long(), positions[:, 4:], first)
    for layer, expected in zip(append_kv(first, rest), whole[:2], strict=True):
        torch.testing.assert_close(layer.keys, expected.keys, rtol=1e-5, atol=1e-6)


def test_a_model_that_fills_fewer_layers_is_refused() -> None:
    model = tiny_model("qwen3")
    with pytest.raises(UnsupportedModelError, match="only 4 of 9 layers keep keys and values"):
        Prefill(model, 9).run(torch.ones(1, 2).long(), torch.ones(1, 2).long(), torch.arange(2)[None])


def test_a_model_that_adds_cache_layers_of_its_own_is_refused() -> None:
    model = tiny_model("qwen3")

    def add_layer(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs[CACHE_ARGUMENT]
        cache.layers.append(cache.layers[0])

    model.register_forward_pre_hook(add_layer, with_kwargs=True)
    with pytest.raises(UnsupportedModelError, match="runs layers several times in one pass"):
        Prefill(model, 4).run(torch.ones(1, 2).long(), torch.ones(1, 2).long(), torch.arange(2)[None])

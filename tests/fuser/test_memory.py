"""The memory fuser: batched attention against a loop over rows, layers and slots, and the uses that it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import FuserConfigError, FuserInputError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.fuser.kind import find_kind
from c2c_lightning.fuser.memory import MemoryConfig, MemoryKind
from c2c_lightning.fuser.packing import PackedKV
from c2c_lightning.fuser.pruning import without_layers
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.fuser.kinds import HYBRID, RECEIVER, SHARER, STEP, check_finite_differences, entries_of, make
from tests.model.test_families import alone, prompts
from tests.model.test_prefix_match import tokens
from tests.tiny import tiny_pair

HEADS = 2
OPTIONS = {"width": 6, "num_slots": 3, "num_heads": HEADS}
EVERY = FusionStep(0, 5, (FusedTokens.all_tokens(2, 5, torch.device("cpu")),))
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


def memory(receiver: Any = RECEIVER) -> Fuser:
    return make(receiver, kind="memory", options=OPTIONS)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One query (width,) over keys and values (n, width), head by head."""
    size = len(query) // HEADS
    heads = []
    for n in range(HEADS):
        part = slice(n * size, (n + 1) * size)
        weights = torch.softmax(keys[:, part] @ query[part] / size**0.5, 0)
        heads.append(weights @ values[:, part])
    return torch.cat(heads)


def slow_row(part: MemoryKind, mine: LayerStack, theirs: LayerStack, row: int, pairs: list[tuple[int, int]]) -> Tensor:
    """Residual keys and values of one row, (layers, tokens, numbers), for its fused (token, source) pairs."""

    def entry(layer: LayerKV, token: int) -> Tensor:
        return torch.cat([layer.keys[row, :, token].flatten(), layer.values[row, :, token].flatten()])

    def linear(x: Tensor, m: Any, n: int) -> Tensor:
        return x @ m.weight[n] + m.bias[n, 0]

    read: dict[str, list[Tensor]] = {name: [] for name in ("their keys", "their values", "keys", "values")}
    positions = {}
    for n, (receiver_layer, sharer_layer) in enumerate(zip(part.receiver_layers, part.sharer_layers, strict=True)):
        for token, source in pairs:
            keys, values = linear(entry(theirs[sharer_layer], source), part.read_sharer, n).chunk(2)
            read["their keys"].append(keys)
            read["their values"].append(values)
            keys, values, positions[n, token] = linear(entry(mine[receiver_layer], token), part.read_receiver, n).chunk(
                3
            )
            read["keys"].append(keys)
            read["values"].append(values)
    sides = {name: torch.stack(entries) for name, entries in read.items()}
    slots = [attend(query, sides["their keys"], sides["their values"]) for query in part.slots[0]]
    slots += [attend(query, sides["keys"], sides["values"]) for query in part.slots[1]]
    joined = [linear(s / torch.sqrt(s.pow(2).mean() + 1e-6), part.join, 0).chunk(3) for s in slots]
    queries, keys, values = (torch.stack(x) for x in zip(*joined, strict=True))
    final = torch.stack([s + attend(q, keys, values) for s, q in zip(slots, queries, strict=True)])
    layers = []
    for n in range(len(part.receiver_layers)):
        found = [attend(positions[n, token], final, final) for token, _ in pairs]
        layers.append(
            torch.stack([torch.cat([linear(x, part.up_keys, n), linear(x, part.up_values, n)]) for x in found])
        )
    return torch.stack(layers)


@pytest.mark.parametrize("step", [STEP, EVERY], ids=["some tokens", "all tokens"])
@pytest.mark.parametrize("receiver", [RECEIVER, HYBRID], ids=["uniform", "hybrid"])
def test_the_batched_fuser_is_the_slow_twin(receiver: Any, step: FusionStep) -> None:
    fuser = memory(receiver)
    mine, theirs, fused = entries_of(receiver, 5, 1), entries_of(SHARER, 6, 2), step.fused_tokens[0]
    result = fuser(mine, [theirs], step)
    for part in fuser.sharers[0].groups:
        assert isinstance(part, MemoryKind)
        for row in range(2):
            places = fused.row == row
            pairs = list(zip(fused.token[places].tolist(), fused.source[places].tolist(), strict=True))
            expected = slow_row(part, mine, theirs, row, pairs)
            for n, layer in enumerate(part.receiver_layers):
                for place, (token, _) in enumerate(pairs):
                    added = [
                        (new[row, :, token] - old[row, :, token]).flatten()
                        for new, old in (
                            (result[layer].keys, mine[layer].keys),
                            (result[layer].values, mine[layer].values),
                        )
                    ]
                    torch.testing.assert_close(torch.cat(added), expected[n, place], atol=1e-5, rtol=1e-5)


def test_gradients_are_finite_differences() -> None:
    check_finite_differences(memory())


def test_a_row_without_fused_tokens_leaves_finite_gradients() -> None:
    fuser, fused = memory(), STEP.fused_tokens[0]
    one_row = FusionStep(1, 4, (fused.where(fused.row == 0),))
    sum(layer.keys.sum() for layer in fuser(entries_of(RECEIVER, 5, 1), [entries_of(SHARER, 6, 2)], one_row)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fuser.parameters())


def model_of(**choices: Any) -> C2CModel:
    torch.manual_seed(3)
    config = FuserConfig(kind="memory", options={"width": 16}, **choices)
    model = C2CModel(load_frozen(tiny_pair("qwen3", 0)), [load_frozen(tiny_pair("llama", 1))], config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def test_alone_is_as_in_a_padded_batch() -> None:
    model, prompt = model_of(), prompts()
    together = model.generate(prompt, **GREEDY)[:, prompt.num_receiver_tokens :]
    for row in range(len(prompt)):
        one = alone(prompt, row)
        assert torch.equal(model.generate(one, **GREEDY)[:, one.num_receiver_tokens :], together[row : row + 1])


def test_a_longer_span_is_pooled_as_a_whole() -> None:
    """Entries of a cached prompt are not reused: they depend on the later tokens of its span."""
    model, ids = model_of(), tokens(20, 0)
    cached, longer = model.prefill(PromptBatch.shared(ids[:, :12])), PromptBatch.shared(ids)
    resumed, whole = model.prefill(longer, prefix=cached), model.prefill(longer)
    for one, other in zip(resumed.fused_kv, whole.fused_kv, strict=True):
        torch.testing.assert_close(one.keys, other.keys)


def test_position_free_keys_are_pooled() -> None:
    fuser = make(kind="rotary_free", options={"kind": "memory", **OPTIONS})
    assert not fuser.is_pointwise
    assert find_kind("rotary_free").used_kinds(fuser.sharers[0].kind_config)[1] is MemoryKind


@pytest.mark.parametrize("mode", ["prompt", "decode"])
@pytest.mark.parametrize("kind", ["memory", "rotary_free"])
def test_modes_that_fuse_token_by_token_are_refused(mode: Any, kind: str) -> None:
    options = {"kind": "memory"} if kind == "rotary_free" else {}
    with pytest.raises(FuserConfigError, match=r"reads all tokens of a span\. Set `fusion_mode: prefill`"):
        FuserConfig(kind=kind, fusion_mode=mode, options=options)


def test_pruning_is_refused() -> None:
    with pytest.raises(FuserConfigError, match="its kind pools all of them"):
        without_layers(memory(), [{0}])


def test_entries_without_places_are_refused() -> None:
    part = memory().sharers[0].groups[0]
    mine, theirs = PackedKV(*(torch.ones(3, 2, 2, 4),) * 2), PackedKV(*(torch.ones(3, 2, 3, 6),) * 2)
    with pytest.raises(FuserInputError, match="reads whole spans"):
        part.residual(mine, theirs, (None, None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0, but must be at least 1"),
        ({"num_slots": 0}, "num_slots is 0, but must be at least 1"),
        ({"num_heads": 5, "width": 12}, r"num_heads is 5, but must divide width \(12\)"),
        ({"num_heads": 0}, "num_heads is 0, but must be at least 1"),
        ({"slots": 4}, r"unknown 'memory' settings \['slots'\]. Did you mean 'num_slots'"),
    ],
    ids=str,
)
def test_impossible_sizes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FuserConfigError, match=message):
        make(kind="memory", options=options)


def test_counted_maps_are_the_weights_and_the_attention() -> None:
    config, receiver, sharer = MemoryConfig(**OPTIONS), RECEIVER.layers[0], SHARER.layers[0]
    maps, part = MemoryKind.linear_maps(receiver, sharer, config), memory().sharers[0].groups[0]
    stacked = ("read_sharer", "read_receiver", "up_keys", "up_values")
    weights = sum(getattr(part, name).weight[0].numel() for name in stacked)
    attention = 2 * 2 * 6 * 3 + 2 * 6 * 6
    assert sum(a * b for a, b in maps.first + maps.other) == weights + attention


def test_the_width_of_hidden_states_is_read_once() -> None:
    sharer = replace(SHARER, hidden_size=10)
    fuser = make(sharer=sharer, kind="memory", options=OPTIONS, sharer_input="hidden")
    assert fuser.sharers[0].groups[0].read_sharer.weight.shape == (3, 10, 12)

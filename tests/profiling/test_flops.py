"""The needed work against what PyTorch counts on the real code.

Eager attention multiplies every query with every key and masks afterwards, so the comparisons count `all_pairs`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.cache import prefix_cache
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.prefill_state import PrefillState
from c2c_lightning.profiling.flops import (
    Sample,
    all_pairs,
    backward,
    causal_pairs,
    decode,
    forward,
    fuse,
    fuse_backward,
    prefill,
    samples_of,
    training_step,
)
from c2c_lightning.profiling.shapes import FuserShape, LMShape, PairShape
from c2c_lightning.profiling.train_step import Trainer
from c2c_lightning.profiling.workload import Workload, equal_batch
from tests.profiling.pairs import tiny
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model() -> C2CModel:
    return tiny().build("cpu").train()


def counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


class Products(TorchDispatchMode):
    """Adds up operations as `FlopCounterMode` does.

    That one sets hooks on modules, which cannot be where a step calls `autograd.grad` inside its forward pass.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.flop += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def prefix_of(model: C2CModel, tokens: int) -> list[LayerKV]:
    geometry = model.receiver.geometry.layers
    return [LayerKV(*torch.randn(2, 1, g.kv_heads, tokens, g.key_dim).requires_grad_()) for g in geometry]


def response_pass(model: C2CModel, prefix: list[LayerKV], new: int, labelled: int) -> Tensor:
    ids = torch.arange(new)[None]
    logits: Tensor = model.receiver.model(
        input_ids=ids,
        attention_mask=torch.ones(1, prefix[0].num_tokens + new),
        position_ids=ids + prefix[0].num_tokens,
        past_key_values=prefix_cache(prefix),
        logits_to_keep=labelled,
    ).logits
    return logits


def test_pairs_are_those_of_the_mask() -> None:
    mask = torch.ones(7, 12).tril(diagonal=5)
    assert causal_pairs(7, 5) == int(mask.sum())
    assert all_pairs(7, 5) == mask.numel()


def test_a_pass_of_the_receiver_is_counted_exactly(model: C2CModel) -> None:
    lm, prefix = PairShape.of(model).receiver, prefix_of(model, 9)
    with torch.no_grad():
        flop = counted(lambda: response_pass(model, prefix, new=6, labelled=4))
        one = counted(lambda: response_pass(model, prefix, new=1, labelled=1))
    assert flop == forward(lm, 6, 9, heads=4, pairs=all_pairs)
    assert one == decode(lm, 9)  # one token sees everything, so both counts of pairs agree


def test_its_backward_pass_is_counted_exactly(model: C2CModel) -> None:
    lm = PairShape.of(model).receiver
    logits = response_pass(model, prefix_of(model, 9), new=6, labelled=4)
    flop = counted(lambda: logits.sum().backward())
    # In the lowest layer autograd gives three products over the new tokens' own pairs too.
    own = 3 * 2 * lm.heads * lm.head_dim * 6 * 6
    assert flop == backward(lm, 6, 9, heads=4, lowest=0, pairs=all_pairs) + own


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_prefill_computes_nothing_else_than_the_last_layers_queries(model: C2CModel, layers: int) -> None:
    lm, ids = PairShape.of(model).sharers[0], torch.arange(11)[None]
    flop = counted(lambda: model.sharers[0].prefill(ids, torch.ones_like(ids), ids, num_layers=layers))
    needed = prefill(lm, 11, num_layers=layers, pairs=all_pairs)
    # transformers computes a layer's queries before it hands keys and values to the cache.
    queries = 2 * 11 * lm.hidden * lm.heads * lm.head_dim
    assert flop in (needed, needed + queries)


def test_a_prefill_in_two_parts_is_as_much_work(model: C2CModel) -> None:
    lm = PairShape.of(model).sharers[0]
    assert prefill(lm, 11) == prefill(lm, 7) + prefill(lm, 4, prefix=7)


LOW_RANK = {"rank": 8, "num_blocks": 1}
KINDS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in ("c2c", "no_weights", "fuse", "project", "no_gates")},
    "c2c of four layers": {"num_layers": 4},
    "c2c_c": {"kind": "c2c_c"},
    "low_rank": {"kind": "low_rank", "options": LOW_RANK},
    "hidden states": {"kind": "low_rank", "options": LOW_RANK, "sharer_input": "hidden"},
    "rotary_free": {"kind": "rotary_free", "options": {"kind": "low_rank", **LOW_RANK}},
    "several_layers": {"kind": "several_layers", "options": {"kind": "low_rank", "num_sources": 2, **LOW_RANK}},
    "ridge": {"kind": "ridge", "options": {"num_sources": 2, "trainable": True}},
    "ridge of bounded rank": {"kind": "ridge", "options": {"num_sources": 2, "map_rank": 5, "trainable": True}},
    "ridge_start": {"kind": "ridge_start", "options": {"num_sources": 2, **LOW_RANK}},
}


@pytest.mark.parametrize("name", KINDS)
def test_fusion_and_its_gradients_are_counted_exactly(name: str) -> None:
    model = tiny(**KINDS[name]).build("cpu").train()
    fuser, prompt = PairShape.of(model).fusers[0], PromptBatch.shared(torch.arange(10)[None])
    with torch.no_grad():
        sharer_kv = model.prefill_sharers(prompt)
        receiver_kv = PrefillState.empty(model.receiver, prompt.receiver).prefill(model.receiver, 9).fused_kv
    fused: list[LayerKV] = []
    flop = counted(lambda: fused.extend(model.fuser(receiver_kv, sharer_kv, prompt.fusion_plan[0])))
    assert flop == fuse(fuser, tokens=9)
    loss = torch.stack([layer.keys.sum() + layer.values.sum() for layer in fused]).sum()
    assert counted(loss.backward) == fuse_backward(fuser, tokens=9)


@pytest.mark.parametrize(("num_sharers", "alignment"), [(1, "terminal"), (2, "terminal"), (1, "depth")])
def test_a_training_step_computes_hardly_more_than_is_needed(num_sharers: int, alignment: str) -> None:
    model = tiny(num_sharers, layer_alignment=alignment).build("cpu")
    pair, batch = PairShape.of(model), equal_batch(1, 40, 12, 96, num_sharers)
    trainer, samples = Trainer(model), samples_of(batch)
    with Products() as products:
        trainer.step(batch)
    assert training_step(pair, samples).total < training_step(pair, samples, all_pairs).total <= products.flop
    # The last layer's queries; and of a second sharer, which reads what the first has written, gradients to its input.
    assert products.flop < 1.05 * training_step(pair, samples, all_pairs).total


def test_only_what_is_above_the_lowest_fused_layer_is_gone_back_through() -> None:
    everything, top = (PairShape.of(tiny(layer_map=[m]).build("cpu")) for m in ([0, 1, 2], [-1, -1, 2]))
    assert (everything.fusers[0].lowest_layer, top.fusers[0].lowest_layer) == (0, 2)
    assert top.fusers[0].sharer_layers == 3
    sample = [Sample.shared(20, 5)]
    assert training_step(top, sample).receiver_backward < training_step(everything, sample).receiver_backward
    nothing = replace(top, fusers=(FuserShape(0, 0, 0, lowest_layer=3, sharer_layers=0),))
    assert training_step(nothing, sample).receiver_backward == training_step(nothing, sample).sharer_prefill == 0


def test_a_replaced_receiver_prefills_only_tokens_that_are_not_fused() -> None:
    ridge = {"kind": "ridge", "options": {"num_sources": 1, "trainable": True}}
    whole, replaced = (PairShape.of(tiny(**ridge, fusion_mode=mode).build("cpu")) for mode in ("prefill", "replace"))
    shared, template = Sample.shared(20, 5), Sample(prefix=19, sharers=(19,), fused=(16,), new=5, labelled=5)
    work, less = training_step(whole, [shared]), training_step(replaced, [shared])
    assert work.parts() == {**less.parts(), "receiver_prefill": prefill(whole.receiver, 19)}
    assert training_step(replaced, [template]).receiver_prefill == prefill(whole.receiver, 3, prefix=16)


def test_padding_and_batching_change_nothing() -> None:
    pair = PairShape.of(tiny().build("cpu"))
    totals = set()
    for batching in ("by_length", "as_drawn"):
        workload = Workload(num_samples=9, batch_size=4, batching=batching)
        samples = [sample for batch in workload.batches(96) for sample in samples_of(batch)]
        totals.add(training_step(pair, samples).total)
    lengths = workload.lengths()
    plain = [Sample.shared(int(p), int(r)) for (p,), r in zip(lengths.prompts, lengths.responses, strict=True)]
    assert totals == {training_step(pair, plain).total}


def test_experts_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="mixture of experts"):
        LMShape.of(tiny_model("qwen3_moe").config)

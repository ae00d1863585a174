"""Attention outputs on other entries, against passes in which one layer of the cache is replaced."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from c2c_lightning.analysis.transform.compared_attention import AttentionComparison, compared_attention
from c2c_lightning.analysis.transform.response_losses import response_states
from c2c_lightning.kv.layer import LayerKV, LayerStack
from tests.analysis.transform.pairs import chat_batch, tiny_model_pair


def other_stack(stack: LayerStack) -> LayerStack:
    generator = torch.Generator().manual_seed(3)

    def noisy(x: Tensor) -> Tensor:
        return x + torch.randn(x.shape, generator=generator)

    return [LayerKV(noisy(layer.keys), noisy(layer.values)) for layer in stack]


# Eager and sdpa; grouped heads; a sliding window that is shorter than the prompt.
@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt_oss"])
def test_cosines_equal_those_of_passes_with_one_replaced_layer(family: str) -> None:
    pair = tiny_model_pair(family, "llama")
    batch, receiver = chat_batch(pair), pair.receiver
    own = pair.entries(batch.prompt).receiver_kv
    other, layers = other_stack(own), range(receiver.geometry.num_layers)
    comparison = AttentionComparison({"other": other, "own": own}, layers)
    with compared_attention(receiver.model, comparison):
        response_states(receiver, batch, own)

    modules = {m.layer_idx: m for m in receiver.model.modules() if hasattr(m, "o_proj")}
    outputs: list[Tensor] = []
    receiver.runs_ragged = False
    for layer in layers:
        handle = modules[layer].o_proj.register_forward_pre_hook(lambda m, inputs: outputs.append(inputs[0]))
        for stack in (own, [*own[:layer], other[layer], *own[layer + 1 :]]):
            response_states(receiver, batch, stack)
        handle.remove()
        found = comparison.cosines["other"][layer]
        first, second = (part.unflatten(-1, (found.shape[-1], -1)) for part in outputs[-2:])
        assert torch.allclose(found, F.cosine_similarity(first, second, dim=-1), atol=1e-5)
        assert torch.allclose(comparison.cosines["own"][layer], torch.ones_like(found), atol=1e-5)


def test_a_pass_returns_the_models_own_states_and_leaves_the_model_as_it_was() -> None:
    pair = tiny_model_pair()
    batch, receiver = chat_batch(pair), pair.receiver
    own = pair.entries(batch.prompt).receiver_kv
    before, name = response_states(receiver, batch, own), receiver.model.config._attn_implementation
    with compared_attention(receiver.model, AttentionComparison({"other": other_stack(own)}, [0, 1])):
        during = response_states(receiver, batch, own)
    assert receiver.model.config._attn_implementation == name
    real = batch.response_mask
    assert torch.allclose(before[real], during[real], atol=1e-4)
    with pytest.raises(KeyError), compared_attention(receiver.model, AttentionComparison({}, [])):
        raise KeyError
    assert receiver.model.config._attn_implementation == name

"""Hybrids as receiver and as sharer: attention layers are fused, recurrent and convolution states stay the model's."""

import pytest
import torch

from c2c_lightning.alignment.layer_alignment import terminal
from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from tests.hybrids import HYBRIDS, frozen_hybrid
from tests.model.test_families import LENGTHS, alone, frozen, prompts

# Delta rule, convolution only, Mamba-2 beside attention in every layer, Mamba-1; the others are slow by number.
FAST = ("qwen3_5_text", "lfm2", "falcon_h1", "jamba")
SLOW = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in HYBRIDS]
every_hybrid = pytest.mark.parametrize("family", SLOW)
SETTINGS = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
MODES = ("prefill", "prompt", "decode")


def fused_model(receiver: FrozenLM, sharer: FrozenLM, **config: object) -> C2CModel:
    """A random fuser with all gates open."""
    torch.manual_seed(0)
    settings = {"hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0, **config}
    model = C2CModel(receiver, [sharer], FuserConfig(**settings)).eval()  # type: ignore[arg-type]
    model.fuser.force_gates(is_open=True)
    return model


def as_receiver(family: str, **config: object) -> C2CModel:
    return fused_model(frozen_hybrid(family), frozen("qwen2", 1), **config)


def response_of(model: C2CModel, prompt: PromptBatch) -> torch.Tensor:
    ids: torch.Tensor = model.generate(prompt, **SETTINGS)
    return ids[:, prompt.num_receiver_tokens :]


@every_hybrid
def test_layer_maps_count_attention_layers(family: str) -> None:
    lm = frozen_hybrid(family)
    assert lm.layout is not None
    kinds = lm.model.config.layer_types
    attention = sum(kind not in ("linear_attention", "conv", "mlp", "moe") for kind in kinds)
    assert lm.geometry.num_layers == lm.layout.num_attention_layers == attention
    assert as_receiver(family).fuser.sharers[0].layer_map == terminal(attention, 3)


@every_hybrid
@pytest.mark.parametrize("mode", MODES)
def test_closed_gates_are_the_bare_receiver(family: str, mode: str) -> None:
    model, prompt = as_receiver(family, fusion_mode=mode), prompts()
    bare = {"input_ids": prompt.receiver.input_ids, "attention_mask": prompt.receiver.mask}
    expected = model.receiver.model.generate(**bare, **SETTINGS)
    assert not torch.equal(model.generate(prompt, **SETTINGS), expected)
    model.fuser.force_gates(is_open=False)
    assert torch.equal(model.generate(prompt, **SETTINGS), expected)
    response = expected[:, prompt.num_receiver_tokens :]
    text = prompt.receiver.append(TokenBatch(response))
    with torch.no_grad():
        logits = model.receiver.model(text.input_ids, attention_mask=text.mask, position_ids=text.positions).logits
        forced = model(prompt, response).logits
    torch.testing.assert_close(forced, logits[:, prompt.num_receiver_tokens - 1 :], atol=1e-3, rtol=1e-3)


@every_hybrid
def test_alone_is_as_in_a_left_padded_batch(family: str) -> None:
    model, prompt = as_receiver(family), prompts()
    together, states = model.generate(prompt, **SETTINGS), model.prefill(prompt).states
    assert states is not None
    for row, length in enumerate(LENGTHS):
        single = alone(prompt, row)
        own = model.prefill(single).states
        assert own is not None
        assert own.layers.keys() == states.layers.keys()
        for n, layer in own.layers.items():
            pairs = zip(layer.conv + layer.recurrent, states.layers[n].conv + states.layers[n].recurrent, strict=True)
            for lone, batched in pairs:
                if lone is not None and batched is not None:
                    torch.testing.assert_close(batched[row : row + 1], lone, atol=1e-3, rtol=1e-3)
        assert torch.equal(together[row, -length - 4 :], model.generate(single, **SETTINGS)[0])


@every_hybrid
@pytest.mark.parametrize("mode", MODES)
def test_teacher_forcing_agrees_with_generation_and_trains_the_fuser_only(family: str, mode: str) -> None:
    model, prompt = as_receiver(family, fusion_mode=mode), prompts()
    response = response_of(model, prompt)
    output = model(prompt, response)
    assert torch.equal(output.logits[:, :-1].argmax(-1), response)
    output.loss.backward()
    gradients = [parameter.grad for name, parameter in model.named_parameters() if not name.endswith("gate.logit")]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients if gradient is not None)
    assert all(parameter.grad is None for lm in (model.receiver, *model.sharers) for parameter in lm.model.parameters())


@every_hybrid
@pytest.mark.parametrize("mode", ["prefill", "prompt", pytest.param("decode", marks=pytest.mark.slow)])
def test_a_hybrid_shares_the_entries_of_its_attention_layers(family: str, mode: str) -> None:
    sharer, prompt = frozen_hybrid(family, seed=1), prompts()
    model = fused_model(frozen("qwen2", 0), sharer, fusion_mode=mode)
    ids, mask = prompt.receiver.input_ids, prompt.receiver.mask
    with torch.no_grad():
        own = sharer.model(ids, attention_mask=mask, position_ids=prompt.receiver.positions, use_cache=True)
    entries = [layer for layer in own.past_key_values.layers if getattr(layer, "keys", None) is not None]
    shared = model.prefill_sharers(prompt.to(model.receiver.device))[0]
    assert shared is not None
    assert len(shared) == model.fuser.sharers[0].num_sharer_layers
    for kv, layer in zip(shared, entries, strict=False):
        # Sliding layers of transformers' own cache keep the last columns only.
        begin = ids.shape[1] - layer.keys.shape[2]
        real = mask[:, None, begin : kv.num_tokens, None]
        expected = layer.keys[:, :, : kv.num_tokens - begin]
        torch.testing.assert_close(kv.keys[:, :, begin:] * real, expected * real, atol=1e-4, rtol=1e-4)
    response = response_of(model, prompt)
    with torch.no_grad():
        assert torch.equal(model(prompt, response).logits[:, :-1].argmax(-1), response)


@pytest.mark.parametrize("family", ["qwen3_5_text", "bamba", "jamba"])
def test_a_padded_column_in_a_pass_of_one_token_leaves_the_states_of_its_row(family: str) -> None:
    model, ids = as_receiver(family), torch.tensor([[5, 7], [8, 9]])
    prompt = PromptBatch.shared(ids, torch.tensor([[0, 1], [1, 1]]))
    states = model.prefill(prompt).states
    assert states is not None
    for layer in states.layers.values():
        assert all(not state[0].any() and state[1].any() for state in layer.conv + layer.recurrent if state is not None)
    single, response = PromptBatch.shared(ids[:1, 1:]), torch.full((2, 2), 9)
    with torch.no_grad():
        together, lone = model(prompt, response).logits[:1], model(single, response[:1]).logits
    torch.testing.assert_close(together, lone, atol=1e-4, rtol=1e-4)

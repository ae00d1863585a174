"""Fusion modes: what is fused in which pass, by teacher forcing and step by step, alone and in a padded batch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.cache import cache_entries, edited_prefix_cache
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.model.test_families import alone, prompts
from tests.tiny import tiny_pair

PAIRS = [("qwen3", "llama"), ("gemma3", "qwen2"), ("llama", "gemma3")]
MODES = ["prefill", "prompt", "decode"]
NEW = 5
STEP = 1e-3
SETTINGS = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}

pairs = pytest.mark.parametrize(("receiver", "sharer"), PAIRS)
modes = pytest.mark.parametrize("mode", MODES)


def build(receiver: str, sharer: str, mode: str, num_sharers: int = 1, **choices: object) -> C2CModel:
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, fusion_mode=mode, **choices)
    sharers = [load_frozen(tiny_pair(sharer, seed)) for seed in range(1, 1 + num_sharers)]
    torch.manual_seed(3)
    model = C2CModel(load_frozen(tiny_pair(receiver, 0)), sharers, config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def decode_logits(model: C2CModel, prompt: PromptBatch) -> tuple[Tensor, Tensor]:
    """Greedy tokens (batch, new) and the logits they were taken from (batch, new, vocab)."""
    out = model.generate(prompt, return_dict_in_generate=True, output_logits=True, **SETTINGS)
    return out.sequences[:, prompt.num_receiver_tokens :], torch.stack(out.logits, 1)


@modes
@pairs
def test_teacher_forcing_agrees_with_step_by_step(receiver: str, sharer: str, mode: str) -> None:
    model, prompt = build(receiver, sharer, mode), prompts()
    tokens, logits = decode_logits(model, prompt)
    with torch.no_grad():
        forced = model(prompt, tokens).logits[:, :-1]
    # One pass and several split the same sums differently.
    torch.testing.assert_close(forced, logits, atol=1e-3, rtol=1e-3)


@modes
def test_alone_is_as_in_a_padded_batch(mode: str) -> None:
    model, prompt = build("qwen3", "llama", mode), prompts()
    together, _ = decode_logits(model, prompt)
    for row in range(len(prompt)):
        assert torch.equal(decode_logits(model, alone(prompt, row))[0], together[row : row + 1])


@modes
@pairs
def test_closed_gates_are_the_bare_receiver(receiver: str, sharer: str, mode: str) -> None:
    model, prompt = build(receiver, sharer, mode), prompts()
    model.fuser.force_gates(is_open=False)
    bare = {"input_ids": prompt.receiver.input_ids, "attention_mask": prompt.receiver.mask}
    assert torch.equal(model.generate(prompt, **SETTINGS), model.receiver.model.generate(**bare, **SETTINGS))


def test_modes_differ() -> None:
    model, logits = build("qwen3", "llama", "prefill"), {}
    for mode in MODES:
        model.fuser.config = replace(model.fuser.config, fusion_mode=mode)
        with torch.no_grad():
            logits[mode] = model(prompts(), torch.full((3, 2), 7)).logits
    assert not torch.allclose(logits["prefill"], logits["prompt"])
    assert not torch.allclose(logits["prompt"], logits["decode"])


@pytest.mark.parametrize("order", ["sequential", "parallel"])
def test_decode_is_fusion_of_clean_passes(order: str) -> None:
    """The slow twin: clean caches of the whole text, fused token by token, read by hand."""
    model, prompt = build("qwen3", "llama", "decode", num_sharers=2, sharer_order=order), prompts().select([0])
    prompt = PromptBatch.shared(prompt.receiver.input_ids, num_sharers=2)
    response = torch.tensor([[11, 12, 13]])
    text = torch.cat([prompt.receiver.input_ids, response], 1)
    clean, *theirs = [clean_cache(lm.model, text) for lm in (model.receiver, *model.sharers)]
    fused = [fuse_by_hand(model, n, layer, theirs) for n, layer in enumerate(clean)]
    begin = prompt.num_receiver_tokens - 1
    # The pass over the last prompt token and the response, one token at a time: its own entries are put there after
    # attention has read them, so each token is run twice, the second time over its fused entry.
    logits = [last_logits(model, fused, text, end) for end in range(begin + 1, text.shape[1] + 1)]
    with torch.no_grad():
        output = model(prompt, response)
    torch.testing.assert_close(output.logits[0], torch.cat(logits), atol=1e-3, rtol=1e-3)


def clean_cache(lm: torch.nn.Module, text: Tensor) -> LayerStack:
    cache = DynamicCache()
    with torch.no_grad():
        lm(text, past_key_values=cache, use_cache=True)
    return cache_entries(cache)


def fuse_by_hand(model: C2CModel, n: int, layer: LayerKV, theirs: list[LayerStack]) -> LayerKV:
    with torch.no_grad():
        parts = [model.fuser.fuse_new(n, layer.tokens(t, t + 1), [[k.tokens(t, t + 1) for k in kv] for kv in theirs])
                 for t in range(layer.num_tokens)]  # fmt: skip
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.append(part)
    return whole


def last_logits(model: C2CModel, fused: LayerStack, text: Tensor, end: int) -> Tensor:
    """Logits at the last of `end` tokens when attention reads fused entries of every token, that one included."""
    cache = edited_prefix_cache(
        [layer.tokens(0, end - 1) for layer in fused], lambda n, new: fused[n].tokens(end - 1, end)
    )
    with torch.no_grad():
        out = model.receiver.model(
            text[:, end - 1 : end], position_ids=torch.tensor([[end - 1]]), past_key_values=cache, use_cache=True
        )
    return out.logits[0]


@pytest.mark.parametrize("mode", ["prompt", "decode"])
def test_beams_and_several_answers(mode: str) -> None:
    """Beam search over one beam's worth of scores: the best of several beams is at least as likely as greedy."""
    model, prompt = build("qwen3", "llama", mode), prompts()
    beams = model.generate(prompt, num_beams=3, num_return_sequences=2, **SETTINGS)
    greedy = model.generate(prompt, **SETTINGS)
    assert beams.shape == (6, greedy.shape[1])
    with torch.no_grad():
        best = model(prompt, beams[::2, prompt.num_receiver_tokens :])
        plain = model(prompt, greedy[:, prompt.num_receiver_tokens :])
    assert score(best.logits, beams[::2, -NEW:]).sum() >= score(plain.logits, greedy[:, -NEW:]).sum() - 1e-3


def score(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits[:, :-1].log_softmax(-1).gather(2, tokens[..., None]).sum((1, 2))


@modes
def test_gradients_match_finite_differences(mode: str) -> None:
    """Through every way in which fused entries are read; the models' norms compute in float32, hence the step."""
    model, prompt = build("qwen3", "llama", mode), prompts()
    for lm in (model.receiver, *model.sharers):
        lm.model.double()
    model.fuser.double()
    response = torch.full((3, 3), 9)
    weight = model.fuser.sharers[0].groups[0].values.projector.output.weight
    model(prompt, response).loss.backward()
    direction = torch.randn(weight.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * STEP * direction
            losses.append(model(prompt, response).loss)
            weight -= sign * STEP * direction
    numeric = (losses[0] - losses[1]) / (2 * STEP)
    torch.testing.assert_close((weight.grad * direction).sum(), numeric, rtol=5e-3, atol=1e-3)
    for lm in (model.receiver, *model.sharers):
        lm.model.float()


@pytest.mark.parametrize("mode", ["prompt", "decode"])
def test_prompt_lookup_is_exact(mode: str) -> None:
    model, prompt = build("qwen3", "llama", mode), prompts().select([0])
    assert torch.equal(
        model.generate(prompt, prompt_lookup_num_tokens=2, **SETTINGS), model.generate(prompt, **SETTINGS)
    )


def test_a_model_without_fused_layers_is_moved_like_any_other() -> None:
    receiver, sharer = load_frozen(tiny_pair("qwen3", 0)), load_frozen(tiny_pair("qwen2", 1))
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, layer_map=[[-1] * receiver.geometry.num_layers])
    model, prompt = C2CModel(receiver, [sharer], config).to("cpu").eval(), prompts()
    bare = receiver.model.generate(prompt.receiver.input_ids, attention_mask=prompt.receiver.mask, **SETTINGS)
    assert torch.equal(model.generate(prompt, **SETTINGS), bare)

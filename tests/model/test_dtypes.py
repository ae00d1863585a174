"""Types of numbers: receiver and sharers each in their own, the fuser in float32; and weights that are quantised."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.cache import cache_entries, dynamic_cache
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import generate
from c2c_lightning.model.load_lm import load_frozen
from tests.model.test_families import alone, prompts
from tests.tiny import tiny_model, tiny_tokenizer

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MODES = ["prefill", "prompt", "decode"]
SETTINGS = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
RESPONSE = torch.arange(10, 25).view(3, 5)

types = pytest.mark.parametrize(
    ("receiver", "sharer"), list(product(DTYPES, DTYPES)), ids=lambda dtype: str(dtype).removeprefix("torch.")
)


def frozen(family: str, seed: int, dtype: torch.dtype = torch.float32) -> FrozenLM:
    return load_frozen((tiny_model(family, seed).to(dtype), tiny_tokenizer()))


def fused(receiver: FrozenLM, sharer: FrozenLM, is_open: bool = True, mode: str = "prefill") -> C2CModel:
    torch.manual_seed(3)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, fusion_mode=mode)
    model = C2CModel(receiver, [sharer], config).eval()
    model.fuser.force_gates(is_open=is_open)
    return model


def own_answer(lm: FrozenLM, prompt: PromptBatch) -> Tensor:
    """The model alone, its prompt read in the same two parts, so that roundings agree."""
    tokens = prompt.receiver
    kv = lm.prefill(tokens.input_ids[:, :-1], tokens.mask[:, :-1], tokens.positions[:, :-1])
    assert lm.empty_kv(len(prompt))[0].keys.dtype == kv[0].keys.dtype
    return generate(lm, prompt, dynamic_cache(kv), **SETTINGS)


@pytest.mark.parametrize("mode", MODES)
@types
def test_closed_gates_are_the_bare_receiver(receiver: torch.dtype, sharer: torch.dtype, mode: str) -> None:
    model, prompt = fused(frozen("qwen3", 0, receiver), frozen("llama", 1, sharer), False, mode), prompts()
    tokens = prompt.receiver
    kv = model.receiver.prefill(tokens.input_ids[:, :-1], tokens.mask[:, :-1], tokens.positions[:, :-1])
    for mine, own in zip(cache_entries(model.fuse(prompt)), kv, strict=True):
        assert mine.keys.dtype == receiver
        assert torch.equal(mine.keys, own.keys)
        assert torch.equal(mine.values, own.values)
    assert torch.equal(model.generate(prompt, **SETTINGS), own_answer(model.receiver, prompt))


@pytest.mark.parametrize("mode", MODES)
@types
def test_gradients_flow_through_any_type(receiver: torch.dtype, sharer: torch.dtype, mode: str) -> None:
    """Near those in float32: the receiver's rounding stands between the fuser and the loss."""
    model, prompt = fused(frozen("qwen3", 0, receiver), frozen("llama", 1, sharer), mode=mode), prompts()
    exact = fused(frozen("qwen3", 0), frozen("llama", 1), mode=mode)
    for trained in (model, exact):
        loss = trained(prompt, RESPONSE).loss
        assert loss.dtype == torch.float32
        loss.backward()
    gradients, expected = (
        torch.cat([p.grad.flatten() for p in m.fuser.parameters() if p.grad is not None]) for m in (model, exact)
    )
    assert gradients.dtype == torch.float32
    # bfloat16 has 8 bits of precision, and rounding goes through four layers and back.
    assert torch.cosine_similarity(gradients, expected, 0) > (0.9 if torch.bfloat16 in (receiver, sharer) else 0.99)


@pytest.mark.parametrize("mode", MODES)
@types
def test_fused_answers_in_any_type(receiver: torch.dtype, sharer: torch.dtype, mode: str) -> None:
    model, prompt = fused(frozen("qwen3", 0, receiver), frozen("llama", 1, sharer), mode=mode), prompts()
    ids = model.generate(prompt, **SETTINGS)
    assert not torch.equal(ids, own_answer(model.receiver, prompt))
    with torch.no_grad():
        logits = model(prompt, ids[:, prompt.num_receiver_tokens :]).logits[:, :-1].float()
    # What was written is what a teacher-forced pass finds likeliest, but for roundings of the other split.
    written = logits.gather(2, ids[:, prompt.num_receiver_tokens :, None])[..., 0]
    assert (logits.amax(-1) - written).max() < (0.3 if torch.bfloat16 in (receiver, sharer) else 0.05)


class Int8Linear(nn.Module):
    """A linear map with weights in 8 bits and a scale for each output, as quantisers put in place of `nn.Linear`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = nn.Parameter(linear.weight.abs().amax(1, keepdim=True) / 127)
        self.weight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def by_hand(model: nn.Module) -> None:
    """Quantise all linear maps of a model but its output head."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                setattr(module, name, Int8Linear(child))


def by_torchao(model: nn.Module) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())


@pytest.mark.parametrize("quantise", [by_hand, by_torchao])
@pytest.mark.parametrize("side", ["receiver", "sharer", "both"])
def test_quantised_models(side: str, quantise: Any) -> None:
    """Their caches are ordinary ones: both sides fuse, train the fuser and answer; gates closed, it is the receiver."""
    parts = {"receiver": tiny_model("qwen3", 0), "sharer": tiny_model("llama", 1)}
    for name, model in parts.items():
        if side in (name, "both"):
            quantise(model)
    receiver, sharer = (load_frozen((model, tiny_tokenizer())) for model in parts.values())
    model, prompt = fused(receiver, sharer), prompts()
    answer = model.generate(prompt, **SETTINGS)
    assert torch.equal(model.generate(alone(prompt, 2), **SETTINGS)[:, -6:], answer[2:, -6:])
    model(prompt, RESPONSE).loss.backward()
    gradients = [p.grad for name, p in model.named_parameters() if not name.endswith("gate.logit")]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    model.fuser.force_gates(is_open=False)
    assert torch.equal(model.generate(prompt, **SETTINGS), own_answer(receiver, prompt))
    assert not torch.equal(answer, own_answer(receiver, prompt))

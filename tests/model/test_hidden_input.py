"""A fuser that reads the sharer's hidden states in the place of its keys and values."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import FuserConfigError, FuserInputError, PairMismatchError
from c2c_lightning.fuser.config import FuserConfig, SharerKind
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.profiling.flops import fuse
from c2c_lightning.profiling.shapes import PairShape
from tests.tiny import tiny_pair

KINDS: dict[str, dict[str, Any]] = {
    "c2c": {},
    "low_rank": {"kind": "low_rank", "options": {"rank": 8}},
    "rotary_free": {"kind": "rotary_free", "options": {"kind": "low_rank", "rank": 8}},
    "memory": {"kind": "memory", "options": {"width": 8}},
}


def build(kind: str = "low_rank", sharer: str = "gemma3", **choices: Any) -> C2CModel:
    sizes = {"hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0, "sharer_input": "hidden"}
    config = FuserConfig(**{**sizes, **KINDS[kind], **choices})
    torch.manual_seed(0)
    model = C2CModel(load_frozen(tiny_pair("qwen3", 0)), [load_frozen(tiny_pair(sharer, 1))], config).eval()
    model.fuser.force_gates(is_open=True)
    return model


def prompts() -> PromptBatch:
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    return PromptBatch.shared(ids * mask, mask)


@pytest.mark.parametrize("sharer", ["gemma3", "llama"])
def test_recorded_states_are_those_of_transformers(sharer: str) -> None:
    model, prompt = build(sharer=sharer), prompts()
    (kv,) = model.prefill_sharers(prompt)
    tokens = prompt.sharers[0]
    given = {"input_ids": tokens.input_ids, "attention_mask": tokens.mask, "position_ids": tokens.positions}
    expected = model.sharers[0].model(**given, output_hidden_states=True).hidden_states
    assert kv is not None
    for layer, states in zip(kv, expected, strict=False):
        assert layer.hidden is not None
        real = tokens.mask[:, : layer.num_tokens].bool()
        torch.testing.assert_close(layer.hidden[:, 0][real], states[:, : layer.num_tokens][real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fuser_reads_them_and_nothing_else(kind: str) -> None:
    model, prompt = build(kind), prompts()
    kv = model.prefill_sharers(prompt)
    (stack,) = kv
    assert stack is not None

    def fused(change: Any) -> torch.Tensor:
        return model.prefill(prompt, sharer_kv=[[change(layer) for layer in stack]]).fused_kv[-1].keys

    plain = fused(lambda layer: layer)
    assert torch.equal(fused(lambda x: replace(x, keys=x.keys * 3, values=-x.values)), plain)
    assert not torch.allclose(fused(lambda x: replace(x, hidden=x.hidden.flip(-1))), plain, atol=1e-3)
    # Of root mean square 1, so their size does not count.
    torch.testing.assert_close(fused(lambda x: replace(x, hidden=x.hidden * 5)), plain, atol=1e-4, rtol=1e-4)


def test_the_fuser_is_that_of_normed_states_as_keys_and_values() -> None:
    model, prompt = build("c2c"), prompts()
    (stack,) = model.prefill_sharers(prompt)
    assert stack is not None
    normed = [F.rms_norm(layer.hidden, layer.hidden.shape[-1:], eps=1e-6) for layer in stack]  # type: ignore[union-attr]
    geometry = KVGeometry((LayerGeometry(1, normed[0].shape[-1], normed[0].shape[-1]),) * len(stack))
    config = replace(model.fuser.config, sharer_input="kv")
    plain = Fuser(model.receiver.geometry, [geometry], config).eval()
    plain.load_state_dict(model.fuser.state_dict())
    state = model.prefill(prompt)
    step = prompt.plan.steps[0]
    twin = plain(state.unfused_kv, [[replace(x, keys=n, values=n) for x, n in zip(stack, normed, strict=True)]], step)
    for ours, theirs in zip(state.fused_kv, twin, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)


@pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
def test_generation_agrees_with_teacher_forcing(mode: str) -> None:
    model, prompt = build(fusion_mode=mode), prompts()
    ids = model.generate(prompt, max_new_tokens=4, do_sample=False, eos_token_id=None)[:, prompt.num_receiver_tokens :]
    with torch.no_grad():
        assert torch.equal(model(prompt, ids).logits[:, :-1].argmax(-1), ids)


def test_a_kept_prompt_keeps_the_states() -> None:
    model, prompt = build(), prompts().select([1])
    first = model.prefill(PromptBatch.shared(prompt.receiver.input_ids[:, :8]))
    for a, b in zip(model.prefill(prompt).fused_kv, model.prefill(prompt, prefix=first).fused_kv, strict=True):
        torch.testing.assert_close(a.keys, b.keys, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    model, prompt = build(), prompts()
    model.save_pretrained(tmp_path / "fuser")
    again = C2CModel.from_pretrained(tmp_path / "fuser", model.receiver, model.sharers[0])
    assert again.fuser.config.sharer_input == "hidden"
    assert torch.equal(again.prefill(prompt).fused_kv[0].keys, model.prefill(prompt).fused_kv[0].keys)


def test_operations_and_parameters_count_the_states_once() -> None:
    model = build("low_rank")
    group = model.fuser.sharers[0].groups[0]
    shape = PairShape.of(model).fusers[0]
    inputs = group.down.weight.shape[1]  # type: ignore[union-attr, index]
    layer = model.receiver.geometry.layers[0]
    assert inputs == 32 + layer.kv_heads * (layer.key_dim + layer.value_dim)
    assert fuse(shape, 1) == 2 * sum(
        w.numel() for n, w in group.named_parameters() if n.endswith(".weight") and "norm" not in n
    )


def test_a_sharer_may_differ_from_the_others() -> None:
    geometry = KVGeometry((LayerGeometry(2, 4, 4),) * 3, hidden_size=10)
    config = FuserConfig(
        hidden_dim=8, intermediate_dim=8, sharer_kinds=[SharerKind(), SharerKind(sharer_input="hidden")]
    )
    fuser = Fuser(geometry, [geometry, geometry], config)
    assert [sharer.reads_hidden for sharer in fuser.sharers] == [False, True]


def test_missing_states_are_named() -> None:
    model, prompt = build(), prompts()
    (stack,) = model.prefill_sharers(prompt)
    assert stack is not None
    with pytest.raises(FuserInputError, match="its cache has none"):
        model.prefill(prompt, sharer_kv=[[replace(layer, hidden=None) for layer in stack]])
    unknown = KVGeometry((LayerGeometry(2, 4, 4),))
    with pytest.raises(FuserConfigError, match="width of the sharer's hidden states is not known"):
        Fuser(unknown, [unknown], FuserConfig(sharer_input="hidden"))
    other = Fuser(model.receiver.geometry, [replace(model.sharers[0].geometry, hidden_size=31)], model.fuser.config)
    with pytest.raises(PairMismatchError, match="hidden states of width 31"):
        C2CModel(model.receiver, model.sharers, other)

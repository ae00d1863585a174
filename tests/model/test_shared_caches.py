"""Models whose last layers read the cache of earlier layers (Gemma 3n, Gemma 4 E): the owning layers are fused."""

from typing import Any

import pytest
import torch

from benchmarks.family_matrix import checks
from benchmarks.family_matrix.classes import LMClass
from c2c_lightning.kv.geometry import LayerGeometry
from c2c_lightning.model.frozen_lm import FrozenLM

SHARED = {"num_kv_shared_layers": 2}
GEMMA4 = LMClass("Gemma4ForCausalLM", settings=SHARED)
GEMMA3N = LMClass("Gemma3nForCausalLM")


def gemma4() -> FrozenLM:
    return checks.frozen(GEMMA4.build())


def test_layers_that_own_a_cache_take_part_with_their_own_widths() -> None:
    assert gemma4().geometry.layers == (LayerGeometry(2, 8, 8), LayerGeometry(2, 16, 16))


@pytest.mark.parametrize("mode", checks.MODES)
def test_gemma4_with_shared_caches_as_receiver(mode: str) -> None:
    checks.check_pair(checks.fused_pair(gemma4(), checks.frozen(checks.partner()), mode))


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_gemma4_with_shared_caches_as_sharer(mode: str) -> None:
    checks.check_pair(checks.fused_pair(checks.frozen(checks.partner()), gemma4(), mode))


@pytest.mark.slow
@pytest.mark.parametrize("mode", checks.MODES)
def test_gemma3n_with_itself(mode: str) -> None:
    checks.check_pair(checks.fused_pair(checks.frozen(GEMMA3N.build()), checks.frozen(GEMMA3N.build(1)), mode))


def test_layers_that_read_a_shared_cache_see_fused_entries() -> None:
    model, prompt = checks.fused_pair(gemma4(), checks.frozen(checks.partner()), "prefill"), checks.prompts()
    seen: dict[int, Any] = {}

    def record(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen[module.layer_idx] = kwargs["shared_kv_states"][module.layer_type]

    for layer in model.receiver.model.model.layers[2:]:
        layer.self_attn.register_forward_pre_hook(record, with_kwargs=True)
    fused = model.prefill(prompt)
    with torch.no_grad():
        model.continue_from(fused, model.mode.generation_cache(model, fused), max_new_tokens=1, do_sample=False)
    for reader, owner in ((2, 0), (3, 1)):
        keys, values = seen[reader]
        tokens = fused.fused_kv[owner].num_tokens
        assert torch.equal(keys[:, :, :tokens], fused.fused_kv[owner].keys)
        assert torch.equal(values[:, :, :tokens], fused.fused_kv[owner].values)
        assert not torch.equal(fused.fused_kv[owner].keys, fused.unfused_kv[owner].keys)

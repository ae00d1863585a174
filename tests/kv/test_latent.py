"""Latent attention (MLA) as receiver and as sharer, and the keys and values that a fuser reads of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.family_matrix import checks
from benchmarks.family_matrix.classes import LMClass
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.latent import SharerView
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.profiling.shapes import FuserShape

LATENT_SHAPE, ORDINARY = LayerGeometry(1, 16, 8, is_latent=True), LayerGeometry(2, 6, 5)
VIEWS = {
    (False, False): LayerGeometry(2, 6, 5),
    (False, True): LayerGeometry(1, 24, 16),
    (True, False): LayerGeometry(2, 11, 6),
    (True, True): LayerGeometry(1, 24, 24),
}


def shape(is_latent: bool) -> LayerGeometry:
    return LATENT_SHAPE if is_latent else ORDINARY


def entries(layer: LayerGeometry) -> LayerKV:
    sizes = (3, layer.kv_heads, 7)
    return LayerKV(torch.randn(*sizes, layer.key_dim), torch.randn(*sizes, layer.value_dim))


def latent(model: str = "MiniCPM3ForCausalLM", seed: int = 0, **settings: Any) -> FrozenLM:
    return checks.frozen(LMClass(model, settings=settings).build(seed))


@pytest.mark.parametrize(("receiver", "sharer"), VIEWS)
def test_the_shapes_of_a_view_are_those_of_its_entries(receiver: bool, sharer: bool) -> None:
    view, raw = SharerView(shape(receiver), shape(sharer)), entries(shape(sharer))
    seen = view(raw)
    assert view.geometry == VIEWS[receiver, sharer]
    assert (seen.keys.shape[1], seen.keys.shape[3]) == (view.geometry.kv_heads, view.geometry.key_dim)
    assert (seen.values.shape[1], seen.values.shape[3]) == (view.geometry.kv_heads, view.geometry.value_dim)


def test_between_ordinary_layers_nothing_is_copied() -> None:
    raw = entries(ORDINARY)
    assert SharerView(ORDINARY, ORDINARY)(raw) is raw


@pytest.mark.parametrize("model", ["DeepseekV3ForCausalLM", "MiniCPM3ForCausalLM"])
def test_keys_and_values_of_all_heads_are_linear_maps_of_the_view(model: str) -> None:
    lm = latent(model)
    attention = lm.model.model.layers[0].self_attn
    many = LayerKV(torch.randn(1, 1, 200, 16), torch.randn(1, 1, 200, 8))
    seen = SharerView(ORDINARY, lm.geometry.layers[0])(many)
    for expanded, view in zip(attention.expand_kv(many.keys, many.values), (seen.keys, seen.values), strict=True):
        outputs, inputs = expanded[0].transpose(0, 1).flatten(1), view[0, 0]
        found = torch.linalg.lstsq(inputs.double(), outputs.double()).solution
        torch.testing.assert_close(inputs.double() @ found, outputs.double(), atol=1e-5, rtol=1e-5)


def test_a_latent_geometry_survives_json() -> None:
    geometry = latent().geometry
    assert geometry.layers == (LATENT_SHAPE,) * 4
    assert KVGeometry.from_json(geometry.to_json()) == geometry
    assert geometry.to_json()[0] == [1, 16, 8, "latent"]


@pytest.mark.parametrize(("receiver", "sharer", "mode"), [(True, False, "prompt"), (False, True, "decode")])
def test_latent_and_ordinary_models(receiver: bool, sharer: bool, mode: str) -> None:
    models = [latent() if is_latent else checks.frozen(checks.partner()) for is_latent in (receiver, sharer)]
    checks.check_pair(checks.fused_pair(*models, mode))


@pytest.mark.slow
@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("receiver", ["DeepseekV3ForCausalLM", "DeepseekV2ForCausalLM"])
def test_two_latent_models(receiver: str, mode: str) -> None:
    checks.check_pair(checks.fused_pair(latent(receiver), latent(seed=1), mode))


def test_a_fuser_of_latent_models_is_saved_and_loaded(tmp_path: Path) -> None:
    receiver, sharer = latent(), latent(seed=1)
    model, prompt = checks.fused_pair(receiver, sharer, "prefill"), checks.prompts()
    model.save_pretrained(tmp_path / "fuser")
    loaded = type(model).from_pretrained(tmp_path / "fuser", receiver=receiver, sharers=[sharer])
    assert torch.equal(checks.generate(loaded, prompt), checks.generate(model, prompt))
    card = (tmp_path / "fuser" / "README.md").read_text()
    assert "16 and 8" in card


def test_keys_of_latent_models_cannot_be_freed_of_their_position() -> None:
    config = FuserConfig(kind="rotary_free")
    with pytest.raises(FuserConfigError, match="latent attention"):
        Fuser(KVGeometry((ORDINARY,)), [KVGeometry((LATENT_SHAPE,))], config)


def test_the_counted_maps_are_those_of_the_fuser() -> None:
    receiver, sharer = latent(), checks.frozen(checks.partner())
    model = checks.fused_pair(receiver, sharer, "prefill")
    (counted,) = FuserShape.of(receiver.geometry, [sharer.geometry], model.fuser.config)
    group = model.fuser.sharers[0].groups[0]
    first = [part.features.input.weight.numel() for part in (group.keys, group.values)]  # type: ignore[union-attr]
    assert counted.first_weights == sum(first)

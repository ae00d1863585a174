"""Shapes of a cache, by a prefill of one token."""

import pytest

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.geometry import KVGeometry, probe_geometry, refuse_unfusable
from tests.tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_geometry_of_each_family_survives_json(family: str) -> None:
    model = tiny_model(family)
    geometry = probe_geometry(model, family)
    assert geometry.num_layers == model.config.num_hidden_layers
    assert KVGeometry.from_json(geometry.to_json()) == geometry


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("layer_types", ["full_attention", "linear_attention"], "linear-attention"),
        ("num_kv_shared_layers", 2, "share their KV-cache"),
        ("kv_lora_rank", 8, "latent"),
        ("is_encoder_decoder", True, "encoder-decoder"),
    ],
)
def test_caches_without_keys_and_values_per_token_are_refused_by_name(setting: str, value: object, reason: str) -> None:
    config = tiny_model("qwen3").config
    setattr(config, setting, value)
    with pytest.raises(UnsupportedModelError, match=f"tiny .*{reason}"):
        refuse_unfusable(config, "tiny")

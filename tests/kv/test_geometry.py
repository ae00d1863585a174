"""Shapes of a cache, by a prefill of one token."""

import pytest

from c2c_lightning.kv.geometry import KVGeometry, probe_geometry
from tests.tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_geometry_of_each_family_survives_json(family: str) -> None:
    model = tiny_model(family)
    geometry = probe_geometry(model, family)
    assert geometry.num_layers == model.config.num_hidden_layers
    assert KVGeometry.from_json(geometry.to_json()) == geometry

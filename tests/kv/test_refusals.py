"""Architectures that are refused by their configuration, each with the part that cannot be fused."""

import pytest

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.refusals import refuse_unfusable
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("layer_types", ["linear_attention", "mlp"], "has no attention layer; recurrent and convolution layers"),
        ("layer_types", ["full_attention", "retention"], "layer 1 is of type `retention`: layers of this kind"),
        ("layer_types", ["indexed_attention"], "sparse attention that selects tokens by an indexer"),
        ("layer_types", ["heavily_compressed_attention"], "compressed entries of several tokens"),
        ("is_encoder_decoder", True, "encoder-decoder"),
    ],
)
def test_caches_without_keys_and_values_per_token_are_refused_by_name(setting: str, value: object, reason: str) -> None:
    config = tiny_model("qwen3").config
    setattr(config, setting, value)
    with pytest.raises(UnsupportedModelError, match=f"tiny .*{reason}"):
        refuse_unfusable(config, "tiny")

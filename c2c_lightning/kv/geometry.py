"""What shapes a model's KV-cache has, found out by a one-token prefill instead of from names."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.cache import Prefill


@dataclass(frozen=True)
class LayerGeometry:
    """Shapes of one layer's cache.

    Attributes:
        kv_heads: number of KV heads.
        key_dim: width of one head's key.
        value_dim: width of one head's value.
    """

    kv_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class KVGeometry:
    """Shapes of a model's cache, one entry for each layer.

    Attributes:
        layers: the layers in order.
    """

    layers: tuple[LayerGeometry, ...]

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    def to_json(self) -> list[list[int]]:
        """`[kv_heads, key_dim, value_dim]` for each layer."""
        return [[layer.kv_heads, layer.key_dim, layer.value_dim] for layer in self.layers]

    @classmethod
    def from_json(cls, layers: list[list[int]]) -> "KVGeometry":
        """The inverse of `to_json`."""
        return cls(tuple(LayerGeometry(*layer) for layer in layers))


def probe_geometry(model: nn.Module, name: str) -> KVGeometry:
    """The cache shapes of a causal language model.

    Args:
        model: a transformers causal LM.
        name: what to call it in an error.

    Returns:
        Its geometry, from running one token.

    Raises:
        UnsupportedModelError: a layer keeps no keys and values of its own.
    """
    config: Any = model.config
    refuse_unfusable(config, name)
    # Widths are measured, not read: configs name them differently, and some families have them per layer.
    device = next(model.parameters()).device
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    with torch.no_grad():
        layers = Prefill(model, config.get_text_config().num_hidden_layers).run(token, torch.ones_like(token), token)
    shapes = [(kv.keys.shape[1], kv.keys.shape[3], kv.values.shape[3]) for kv in layers]
    return KVGeometry(tuple(LayerGeometry(*shape) for shape in shapes))


def refuse_unfusable(config: Any, name: str) -> None:
    """Refuse architectures whose cache has no keys and values for each token and layer.

    Raises:
        UnsupportedModelError: names the part that cannot be fused.
    """
    text = config.get_text_config()
    reasons = {
        "it is an encoder-decoder": bool(getattr(config, "is_encoder_decoder", False)),
        "it has linear-attention or recurrent layers, which keep a state instead of keys and values per token": any(
            kind not in ("full_attention", "sliding_attention", "chunked_attention")
            for kind in getattr(text, "layer_types", None) or ()
        ),
        "its layers share their KV-cache": bool(getattr(text, "num_kv_shared_layers", 0)),
        "it compresses keys and values into a latent (MLA)": getattr(text, "kv_lora_rank", None) is not None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UnsupportedModelError(
                f"{name} ({config.model_type}) cannot take part in C2C: {reason}. "
                "Use a decoder-only model whose every layer has ordinary attention."
            )

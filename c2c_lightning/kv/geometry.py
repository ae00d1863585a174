"""What shapes a model's KV-cache has, found out by a one-token prefill instead of from names."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.kv.layout import CacheLayout
from c2c_lightning.kv.prefill import Prefill
from c2c_lightning.kv.refusals import refuse_unfusable

LATENT = "latent"
"""Mark of a latent layer in JSON."""


@dataclass(frozen=True)
class LayerGeometry:
    """Shapes of one layer's cache.

    Attributes:
        kv_heads: number of KV heads.
        key_dim: width of one head's key.
        value_dim: width of one head's value.
        is_latent: whether the place of the keys holds a latent of keys and values, and that of the values the rotated
            part of the keys, see `kv.latent`.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    is_latent: bool = False

    @property
    def token_width(self) -> int:
        """Numbers of one token: all keys and values."""
        return self.kv_heads * (self.key_dim + self.value_dim)

    def describe(self) -> str:
        """The shapes in words."""
        if self.is_latent:
            return f"a latent of width {self.key_dim} and a rotated key of width {self.value_dim}"
        width = str(self.key_dim) if self.key_dim == self.value_dim else f"{self.key_dim} (keys) and {self.value_dim}"
        return f"{self.kv_heads} KV heads of width {width}"


@dataclass(frozen=True)
class HiddenGeometry(LayerGeometry):
    """Shapes of one layer's hidden states in the place of keys and values: one head, the same tensor for both."""

    @property
    def token_width(self) -> int:
        """Numbers of one token: its hidden state once."""
        return self.key_dim


@dataclass(frozen=True)
class KVGeometry:
    """Shapes of a model's cache, one entry for each layer that keeps keys and values of its own.

    Attributes:
        layers: these layers in order.
        hidden_size: width of the model's hidden states, if known; models with equal caches are equal.
    """

    layers: tuple[LayerGeometry, ...]
    hidden_size: int | None = field(default=None, compare=False)

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    def describe(self) -> str:
        """The shapes in words."""
        kinds = dict.fromkeys(layer.describe() for layer in self.layers)
        return f"{self.num_layers} layers, {' or '.join(kinds)}"

    def to_json(self) -> list[list[Any]]:
        """`[kv_heads, key_dim, value_dim]` for each layer, followed by "latent" where it is latent."""
        return [
            [layer.kv_heads, layer.key_dim, layer.value_dim, *([LATENT] if layer.is_latent else [])]
            for layer in self.layers
        ]

    @property
    def of_hidden_states(self) -> "KVGeometry":
        """The shapes of the hidden states that these layers compute their keys and values from.

        Raises:
            FuserConfigError: their width is not known.
        """
        if self.hidden_size is None:
            raise FuserConfigError(
                "the width of the sharer's hidden states is not known, so no fuser can read them. Build the fuser from "
                "a loaded model, or set `sharer_input: kv`."
            )
        one = HiddenGeometry(1, self.hidden_size, self.hidden_size)
        return KVGeometry((one,) * self.num_layers, self.hidden_size)

    @classmethod
    def from_json(cls, layers: list[list[Any]]) -> "KVGeometry":
        """The inverse of `to_json`."""
        return cls(tuple(LayerGeometry(layer[0], layer[1], layer[2], layer[3:] == [LATENT]) for layer in layers))


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
    layout, text = CacheLayout.of(config), config.get_text_config()
    # The last layers of some models (Gemma 3n, Gemma 4 E) read the cache of earlier ones and have none of their own.
    num_layers = text.num_hidden_layers - (getattr(text, "num_kv_shared_layers", 0) or 0)
    if layout is not None:
        num_layers = layout.num_attention_layers
    prefill = Prefill(model, num_layers, to_end=layout is not None, layout=layout)
    with torch.no_grad():
        layers = prefill.run(token, torch.ones_like(token), token)
    shapes = [(kv.keys.shape[1], kv.keys.shape[3], kv.values.shape[3]) for kv in layers]
    # Some versions of transformers cache the expanded keys and values of MLA: these are ordinary.
    latent = 1, getattr(text, "kv_lora_rank", None), getattr(text, "qk_rope_head_dim", None)
    return KVGeometry(
        tuple(LayerGeometry(*shape, shape == latent) for shape in shapes), getattr(text, "hidden_size", None)
    )

"""Architectures that cannot be fused, recognised by their configuration before any weight is loaded."""

from typing import Any

from c2c_lightning.errors import UnsupportedModelError

ORDINARY = ("full_attention", "sliding_attention", "chunked_attention", "hybrid", "hybrid_sliding")
"""Layer types whose cache holds keys and values for each token; hybrid ones hold a state too."""

STATES_ONLY = ("linear_attention", "conv", "moe", "mlp")
"""Layer types whose cache holds a state instead of keys and values, or nothing."""

#: A window as a property of the cache class alone cannot be found by running the model.
WINDOW_WITHOUT_MASK = ("moshi",)
"""Model types whose sliding window is no attention mask: they would attend beyond it in a complete cache."""


def refuse_unfusable(config: Any, name: str) -> None:
    """Refuse architectures whose cache has no keys and values for each token and layer.

    Args:
        config: a transformers configuration.
        name: name of the model, for the message.

    Raises:
        UnsupportedModelError: names the part that cannot be fused.
    """
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise refusal(name, config, "it is an encoder-decoder")
    if config.model_type in WINDOW_WITHOUT_MASK:
        raise refusal(name, config, "its sliding window is no attention mask, but a cache that drops older tokens")
    kinds = getattr(text, "layer_types", None) or ()
    if kinds and not set(kinds) - set(STATES_ONLY):
        raise refusal(
            name, config, "it has no attention layer; recurrent and convolution layers keep a state instead of entries"
        )
    for number, kind in enumerate(kinds):
        if kind not in ORDINARY + STATES_ONLY:
            raise refusal(name, config, f"layer {number} is of type `{kind}`: {_reason(kind)}")


def refusal(name: str, config: Any, reason: str) -> UnsupportedModelError:
    """The error for a model that cannot take part."""
    return UnsupportedModelError(
        f"{name} ({config.model_type}) cannot take part in C2C: {reason}. "
        "Use a decoder-only model with ordinary attention in all or some of its layers."
    )


def _reason(kind: str) -> str:
    """Why a layer type is not fused."""
    if "indexed" in kind:
        return (
            "sparse attention that selects tokens by an indexer with a key cache of its own, to which fused entries "
            "would be unknown"
        )
    if "compressed" in kind:
        return "its cache holds compressed entries of several tokens, which belong to no single token"
    return "layers of this kind are not known"

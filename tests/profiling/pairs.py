"""Tiny pairs to time and to count."""

from typing import Any

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.profiling.model_pair import RandomPair

RECEIVER = {
    "model_type": "qwen3",
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "intermediate_size": 48,
    "vocab_size": 96,
    "max_position_embeddings": 1024,
}
SHARER = {
    "model_type": "qwen2",
    "num_hidden_layers": 4,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 40,
    "vocab_size": 96,
    "max_position_embeddings": 1024,
}


def tiny(num_sharers: int = 1, attention: str = "eager", **fuser: Any) -> RandomPair:
    """A pair whose every size differs from every other."""
    choices = FuserConfig(**{"hidden_dim": 20, "intermediate_dim": 28, "dropout": 0.0, **fuser})
    return RandomPair(RECEIVER, [SHARER] * num_sharers, choices, attention=attention)

"""Tiny random hybrid models: attention layers between recurrent and convolution layers."""

from functools import cache
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import WINDOW, tiny_tokenizer

_SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_DELTA = {
    "linear_key_head_dim": 8, "linear_value_head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
_MAMBA_1 = {"mamba_d_state": 8}
_MAMBA_2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SHARED_EXPERT = {**_EXPERTS, "shared_expert_intermediate_size": 16}
_LINEAR = ["linear_attention", "full_attention"] * 2
_CONV = ["conv", "full_attention"] * 2
_ZAMBA = ["mamba", "hybrid"] * 2

# A state layer first, last or in every layer; one attention layer or several; heads of unequal widths.
HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": {"head_dim": 12, "layer_types": [*_LINEAR, "linear_attention"], "num_hidden_layers": 5, **_DELTA},
    "qwen3_5_moe_text": {"head_dim": 12, "layer_types": _LINEAR, **_DELTA, **_SHARED_EXPERT},
    "qwen3_next": {"head_dim": 12, "layer_types": _LINEAR, **_DELTA, **_SHARED_EXPERT},
    "olmo_hybrid": {"layer_types": _LINEAR, **_DELTA},
    # Its attention layers cache latents (MLA).
    "kimi_linear": {
        "layer_types": _LINEAR, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8, "v_head_dim": 8, "linear_head_dim": 8, "linear_num_heads": 4, "num_local_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    },
    "lfm2": {"layer_types": _CONV, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": _CONV, "num_dense_layers": 1, **_EXPERTS},
    "lfm3": {"head_dim": 8, "layer_types": ["conv", "sliding_attention", *_CONV[2:]], "sliding_window": WINDOW},
    "falcon_h1": {"num_hidden_layers": 3, "head_dim": 8, "mamba_d_ssm": 64, **_MAMBA_2},
    "granitemoehybrid": {
        "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"],
        "num_local_experts": 0, "shared_intermediate_size": 32, **_MAMBA_2,
    },
    "nemotron_h": {
        "layers_block_type": ["mamba", "mlp", "attention", "mamba", "attention", "mlp"], "num_hidden_layers": 6,
        "head_dim": 12, "ssm_state_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1, "chunk_size": 8,
    },
    "bamba": {"attn_layer_indices": [1, 2], **_MAMBA_2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1, **_MAMBA_1},
    "zamba": {"num_key_value_heads": 4, "layers_block_type": _ZAMBA, **_MAMBA_1},
    "zamba2": {
        "num_key_value_heads": 4, "layers_block_type": _ZAMBA, "n_mamba_heads": 4, "mamba_d_state": 8, "chunk_size": 8,
    },
    "zaya": {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16, "router_hidden_size": 16},
}  # fmt: skip
"""Settings of each family over `_SIZES`."""


def hybrid_config(family: str, **settings: Any) -> PreTrainedConfig:
    """Its configuration."""
    config: PreTrainedConfig = CONFIG_MAPPING[family](**{**_SIZES, **HYBRIDS.get(family, {}), **settings})
    return config


def hybrid_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> PreTrainedModel:
    """A random hybrid of width 32 in evaluation mode; the caller's random state is left as it was."""
    config = hybrid_config(family, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


@cache
def frozen_hybrid(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> FrozenLM:
    """The same model, frozen."""
    return load_frozen((hybrid_model(family, seed, dtype), tiny_tokenizer()))

"""Tiny configurations of any language model class: sizes are replaced by field name, structure is kept.

transformers names the same size differently in each family, and many families compute further fields from it. Lists
with one entry per layer (layer types, dense or sparse MLPs) are shortened so that every combination stays.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import CONFIG_MAPPING

WINDOW = 8
"""Sliding windows and attention chunks, in tokens: shorter than the prompts of the checks."""

LAYERS, VOCAB, WIDTH = 4, 320, 32

_NAMES: dict[int, str] = {
    320: "vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size pronunciation_vocab_size "
    "shape_vocab_size encoder_hash_byte_group_vocab",
    512: "max_position_embeddings n_positions n_ctx max_seq_len model_max_length max_target_positions context_length "
    "original_max_position_embeddings",
    48: "intermediate_size moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
    "shared_intermediate_size intermediate_size_mlp dense_intermediate_size moe_shared_expert_intermediate_size "
    "decoder_ffn_dim encoder_ffn_dim ffn_dim ffn_hidden_size expert_ffn_hidden_size feed_forward_size dim_ff dff "
    "d_inner n_inner",
    32: "hidden_size d_model n_embd emb_dim embedding_dim embedding_size word_embed_proj_dim input_embedding_size "
    "output_embedding_size lru_width mamba_d_ssm router_hidden_size dim_model_base pronunciation_embed_dim "
    "shape_embed_dim ple_embed_dim",
    16: "q_lora_rank kv_lora_rank o_lora_rank index_head_dim hc_lowrank laurel_rank adapter_rank mamba_chunk_size "
    "chunk_size block_size",
    8: "head_dim v_head_dim qk_nope_head_dim qk_rope_head_dim global_head_dim swa_head_dim dim_head d_head "
    "linear_key_head_dim linear_value_head_dim linear_head_dim attention_head_size attention_head_dim kv_channels "
    "mamba_d_head mamba_head_dim hidden_size_per_layer_input state_size mamba_d_state ssm_state_size "
    "time_step_rank mamba_dt_rank "
    "sliding_window attention_chunk_size window_size sliding_window_size attention_window_size local_attention "
    "index_topk rotary_dim",
    LAYERS: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_encoder_layers "
    "num_decoder_layers num_blocks num_attention_heads n_head n_heads num_heads decoder_attention_heads "
    "encoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads attention_heads "
    "linear_num_heads mamba_n_heads linear_num_value_heads swa_num_attention_heads num_experts "
    "num_local_experts n_routed_experts "
    "moe_num_experts index_n_heads mamba_num_heads",
    2: "num_experts_per_tok num_experts_per_token moe_topk moe_k num_kv_heads linear_num_key_heads "
    "global_attn_every_n_layers sliding_window_pattern _sliding_window_pattern no_rope_layer_interval "
    "swa_num_key_value_heads attn_layer_period index_topk_blocks zero_expert_num n_layers_per_attn_res_block "
    "num_layers_per_stack layer_group_size altup_num_inputs num_kv_shared_layers",
    1: "n_group topk_group num_expert_group n_shared_experts num_shared_experts moe_num_shared_experts "
    "first_k_dense_replace num_dense_layers moe_layer_start_index attn_layer_offset n_groups mamba_ngroups",
}
SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}

_RANGES = ("initializer_range", "init_std", "initializer_factor", "initializer_std")


def tiny_config(config_class: type[Any], **overrides: Any) -> Any:
    """A small configuration of a class, with every kind of layer of its default one.

    Args:
        config_class: a configuration class of transformers.
        overrides: fields that are set as they are given.
    """
    return config_class(**{**_settings(config_class), **EXCEPTIONS.get(config_class.model_type, {}), **overrides})


def _settings(config_class: type[Any]) -> dict[str, Any]:
    values = config_class().to_dict()
    settings = {name: _tiny(name, value) for name, value in values.items() if _tiny(name, value) is not None}
    settings |= _layer_lists(values)
    settings |= {"num_key_value_heads": _kv_heads(values)} if values.get("num_key_value_heads") else {}
    # Without it random logits are nearly equal, and a fused cache changes no answer.
    settings |= {name: 0.3 for name in _RANGES if name in values}
    # Tied, a random model repeats its last token, whatever its cache holds.
    settings |= {"tie_word_embeddings": False} if "tie_word_embeddings" in values else {}
    if isinstance(values.get("rope_parameters"), Mapping):
        settings["rope_parameters"] = _rope(values["rope_parameters"])
    for name, part in getattr(config_class, "sub_configs", {}).items():
        if isinstance(values.get(name), Mapping):
            kind = values[name].get("model_type") or getattr(part, "model_type", None)
            # `get` of this lazy mapping would not find it.
            known = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else part  # noqa: SIM401
            settings[name] = {"model_type": kind, **_settings(known), **EXCEPTIONS.get(kind, {})}
    return settings


def _tiny(name: str, value: Any) -> int | None:
    if value is None:
        return {"head_dim": 8, "num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1}.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if name.endswith("_token_id"):
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        return ids.get(name, VOCAB - 1 if value >= VOCAB else None)
    return min(SIZES[name], value) if name in SIZES and value > 0 else None


def _kv_heads(values: Mapping[str, Any]) -> int:
    """Two, or as many as there are query heads where the family has no grouped queries."""
    heads = values["num_key_value_heads"]
    return min(heads, 4 if heads == values.get("num_attention_heads") else 2)


def _rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary parameters without scaling, for each kind of layer where they differ."""
    if rope and all(value is None or isinstance(value, Mapping) for value in rope.values()):
        return {kind: None if parameters is None else _rope(parameters) for kind, parameters in rope.items()}
    names = ("rope_theta", "partial_rotary_factor", "llama_4_scaling_beta", "original_max_position_embeddings")
    return {"rope_type": "default", **{name: rope[name] for name in names if rope.get(name) is not None}}


def _layer_lists(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The fields with one entry per layer, shortened to the layers of a tiny model."""
    depth = next((values[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if values.get(name)), None)
    lists = {name: value for name, value in values.items() if isinstance(value, list) and len(value) == depth}
    lists = {name: value for name, value in lists.items() if not name.endswith("_scale")}
    if not lists or depth is None or depth <= LAYERS:
        return {}
    layers = _representatives(list(zip(*map(_hashable, lists.values()), strict=True)), LAYERS)
    return {name: [_tiny_entry(name, value[n]) for n in layers] for name, value in lists.items()}


def _tiny_entry(name: str, value: Any) -> Any:
    size = _tiny(name, value)
    return value if size is None else size


def _hashable(values: Sequence[Any]) -> list[Any]:
    return [repr(value) for value in values]


def _representatives(kinds: Sequence[Any], count: int) -> list[int]:
    """Indices of `count` layers in which every kind appears, as far as there is room; the kinds take turns."""
    first = sorted({kind: n for n, kind in reversed(list(enumerate(kinds)))}.values())[:count]
    return [first[n % len(first)] for n in range(count)]


EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_d_head": 16, "attn_layer_indices": [1, 3]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4}},
    "gemma4_text": {"global_head_dim": 16},
    "gemma4_unified_text": {"global_head_dim": 16},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "csm_depth_decoder_model": {"backbone_hidden_size": 32},
    "dory": {"layer_types": ["sliding_attention", "full_attention"] * 2, "n_input_layers": 1,
             "n_recurrent_layers": 2, "n_output_layers": 1},
    "dots3_note_text": {"swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8, "swa_kv_lora_rank": 16,
                        "swa_q_lora_rank": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4,
                        "sliding_window": WINDOW},
    "granitemoehybrid": {"mamba_d_head": 16, "layer_types": ["linear_attention", "full_attention"] * 2},
    "hrm_text": {"num_hidden_layers": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "ministral3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1,
                                       "original_max_position_embeddings": 512}},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
                       "indexer_compress_ratio": 2, "ngram_vocab_size_base": 320, "split_ngram_parts": 2},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 32]},
    "xlstm": {"embedding_dim": 128, "hidden_size": 128},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
}  # fmt: skip
"""Fields that the rules above do not determine, by `model_type`."""

"""A GGUF file as a folder of transformers: configuration, dequantised weights and tokenizer."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedConfig

from c2c_lightning.errors import ModelLoadError
from tools.real_models.gguf_file import GGUFFile
from tools.real_models.tokenizers_of_gguf import tokenizer_of

#: Model types of transformers by the architecture's name in GGUF files.
_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "gemma3": "gemma3_text"}
#: Every sixth layer of Gemma 3 attends to all tokens, the others to a window (arXiv 2503.19786, section 2).
_GEMMA_PATTERN = 6


def convert(file: GGUFFile, folder: Path) -> None:
    """Write the model in bfloat16."""
    config = config_of(file)
    config.save_pretrained(folder)
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**ids).save_pretrained(folder)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in weights_of(file, config).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer_of(file).save_pretrained(folder)


def config_of(file: GGUFFile) -> PreTrainedConfig:
    """The configuration of a file.

    Raises:
        ModelLoadError: the architecture is another than those of `sources.py`.
    """
    if file.architecture not in _MODEL_TYPES:
        raise ModelLoadError(f"The architecture {file.architecture!r} is unknown. Known are {', '.join(_MODEL_TYPES)}.")
    values: dict[str, Any] = {
        "vocab_size": len(file["tokenizer.ggml.tokens"]),
        "hidden_size": file[".embedding_length"],
        "intermediate_size": file[".feed_forward_length"],
        "num_hidden_layers": file[".block_count"],
        "num_attention_heads": file[".attention.head_count"],
        "num_key_value_heads": file[".attention.head_count_kv"],
        "max_position_embeddings": file[".context_length"],
        "rms_norm_eps": _decimal(file[".attention.layer_norm_rms_epsilon"]),
        "rope_parameters": _rope(file[".rope.freq_base"]),
        "tie_word_embeddings": "output.weight" not in file,
        "bos_token_id": file.token_id("bos"),
        "eos_token_id": file.token_id("eos"),
        "pad_token_id": file.token_id("padding"),
        "dtype": torch.bfloat16,
    }
    values |= _gemma_values(file) if file.architecture == "gemma3" else {}
    config = AutoConfig.for_model(_MODEL_TYPES[file.architecture], **values)
    with torch.device("meta"):
        config.architectures = [type(AutoModelForCausalLM.from_config(config)).__name__]
    return config


def _gemma_values(file: GGUFFile) -> dict[str, Any]:
    layers = range(1, file[".block_count"] + 1)
    return {
        "head_dim": file[".attention.key_length"],
        "query_pre_attn_scalar": file[".attention.key_length"],
        "sliding_window": file[".attention.sliding_window"],
        "layer_types": ["sliding_attention" if layer % _GEMMA_PATTERN else "full_attention" for layer in layers],
        # The base of layers with a window is not in the file.
        "rope_parameters": {
            "full_attention": _rope(file[".rope.freq_base"]),
            "sliding_attention": _rope(10_000.0),
        },
    }


def weights_of(file: GGUFFile, config: PreTrainedConfig) -> dict[str, Tensor]:
    """The weights by their names in transformers, in float32."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    weights = file.state_dict(list(shapes), config.num_hidden_layers)
    if file.architecture == "llama":
        weights = {name: _in_halves(name, tensor, config) for name, tensor in weights.items()}
    if file.architecture == "gemma3":
        # GGUF has 1 + w, transformers adds the 1 itself.
        weights = {name: tensor - 1 if name.endswith("norm.weight") else tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if tensor.shape != shapes[name]:
            raise ModelLoadError(f"{name} has the shape {tuple(tensor.shape)} instead of {tuple(shapes[name])}.")
    return weights


def _in_halves(name: str, weight: Tensor, config: PreTrainedConfig) -> Tensor:
    """Rows of query and key weights: GGUF has the two halves of a rotation side by side, transformers one after one."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _rope(base: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": _decimal(base)}


def _decimal(value: float) -> float:
    """A float32 as the decimal number that was rounded to it: 9.99999974e-07 is 1e-06."""
    return float(f"{value:.6g}")

"""The architectures of the embedded models, and their files."""

import json
from pathlib import Path
from typing import TypeVar

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tools.embedded_world.tokenization import MAX_TOKENS
from tools.embedded_world.world import Third

Model = TypeVar("Model", bound=PreTrainedModel)

_INITIAL_STD = 0.08  # near 1 / sqrt(width); with the usual 0.02 attention takes ten times as many steps to form


def new_receiver(tokenizer: PreTrainedTokenizerBase) -> Qwen3ForCausalLM:
    """Build an untrained receiver: Qwen3, 4 layers, 0.47 million parameters."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=224,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _widely_initialised(Qwen3ForCausalLM(config))


def new_sharer(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Build an untrained sharer: Llama, 6 layers, 0.92 million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=120,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=20,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _widely_initialised(LlamaForCausalLM(config))


def new_peer(third: Third, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Build an untrained peer: Qwen3, Llama or Qwen2 with 4, 5 or 6 layers, 0.26 to 0.45 million parameters."""
    model_class, config_class, sizes = _PEERS[third]
    config = config_class(
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    return _widely_initialised(model_class(config))


def _sizes(layers: int, width: int, inner: int, heads: int, kv_heads: int, head_dim: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }


_PEERS: dict[Third, tuple[type[PreTrainedModel], type[PretrainedConfig], dict[str, int]]] = {
    "first": (Qwen3ForCausalLM, Qwen3Config, _sizes(4, 64, 192, 4, 2, 24)),
    "second": (LlamaForCausalLM, LlamaConfig, _sizes(5, 72, 176, 6, 3, 12)),
    "last": (Qwen2ForCausalLM, Qwen2Config, _sizes(6, 80, 160, 4, 4, 20)),
}
"""Class, configuration and sizes of the peer of each third: no two agree in layers, KV heads or head width."""


def _widely_initialised(model: Model) -> Model:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            writes_to_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(parameter, std=_INITIAL_STD / 3 if writes_to_residual else _INITIAL_STD)
    return model


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write weights in half precision, with a config that loads them in single precision, and the tokenizer.

    Args:
        model: its weights are rounded to half precision too, so that it equals the written model.
        tokenizer: its tokenizer.
        directory: output directory.
    """
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=32,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.half().save_pretrained(directory)
    model.float()
    config_file = directory / "config.json"
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
    tokenizer.save_pretrained(directory)

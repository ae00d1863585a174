"""Tiny random language models and tokenizers, built in memory: no file, no network, same seed, same weights."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

Style = Literal["chatml", "header", "plain"]

WINDOW = 8
"""Sliding windows are this many tokens wide, so that every ordinary test prompt is longer."""

_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_HYBRID = ["sliding_attention", "full_attention"]
# Gemma scales its embeddings; tied, a tiny random model only repeats its last token, whatever the cache says.
_GEMMA = {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}

# Layers, heads, KV heads and head widths differ, so that no two families fit by accident.
FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "qwen2": (Qwen2Config, {"layers": 3, "heads": 4, "kv_heads": 2}),
    "qwen3": (Qwen3Config, {"layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 12}),
    "qwen3_moe": (Qwen3MoeConfig, {"layers": 2, "heads": 4, "kv_heads": 1, "head_dim": 12, **_MOE}),
    "llama": (LlamaConfig, {"layers": 2, "heads": 4, "kv_heads": 4, "head_dim": 6}),
    "mistral": (MistralConfig, {"layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 10, "sliding_window": WINDOW}),
    "gemma2": (
        Gemma2Config,
        {"layers": 4, "heads": 2, "kv_heads": 1, "head_dim": 16, **_GEMMA},
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            "layers": 4,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 16,
            "layer_types": _HYBRID * 2,
            **_GEMMA,
        },
    ),
    "phi3": (Phi3Config, {"layers": 2, "heads": 4, "kv_heads": 2}),
    "smollm3": (SmolLM3Config, {"layers": 4, "heads": 4, "kv_heads": 2, "no_rope_layers": [1, 1, 0, 1]}),
    "olmo2": (Olmo2Config, {"layers": 3, "heads": 4, "kv_heads": 4}),
    "gpt_oss": (
        GptOssConfig,
        {
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": _HYBRID,
            # The default is YaRN scaled for a context that a tiny model does not have.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            **_MOE,
        },
    ),
}

_SHORT_NAMES = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}


def tiny_model(family: str = "qwen3", seed: int = 0, **sizes: Any) -> PreTrainedModel:
    """A random causal LM of width 32 in float32 and evaluation mode.

    Args:
        family: A key of ``FAMILIES``.
        seed: Seed of the weights; the caller's random state is left as it was.
        **sizes: Overrides: ``layers``, ``heads``, ``kv_heads``, ``head_dim``, ``vocab_size`` (320 entries) or any
            field of the family's configuration.
    """
    config_class, defaults = FAMILIES[family]
    settings = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        # Large enough that logits differ by far more than rounding, and that a fused cache changes the answer.
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **defaults,
        **sizes,
    }
    config = config_class(**{_SHORT_NAMES.get(key, key): value for key, value in settings.items()})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # from_config gives train mode.
    return model.eval()


_CORPUS: dict[Style, Sequence[str]] = {
    "chatml": ["What is the capital of Arlen? The answer is Velmora.", "Name a city. Why does the river bend?"] * 4,
    "header": ["capital city river answer question velvet morning arrow lent", "the then there where what"] * 4,
    "plain": ["Answer: Question: Choices: A. B. C. D. the correct answer is", "12 + 34 = 46"] * 4,
}

_TEMPLATES: dict[Style, str | None] = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "header": (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    ),
    "plain": None,
}


@cache
def _tokenizer_json(style: Style, vocab_size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS[style], trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(style: Style = "chatml", vocab_size: int = 320) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer (any text round-trips) with padding 0, beginning 1 and end 2.

    Args:
        style: Each was trained on other words, so that the same text splits differently. ``chatml`` and ``header``
            have a chat template of their own, ``plain`` has none, like a base model.
        vocab_size: Entries at most; 259 are bytes and special tokens.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json(style, vocab_size)),
        pad_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _TEMPLATES[style]
    return tokenizer


def tiny_pair(
    family: str = "qwen3", seed: int = 0, style: Style = "chatml", **sizes: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A tiny model together with its tokenizer, as ``load_frozen`` takes them."""
    tokenizer = tiny_tokenizer(style)
    return tiny_model(family, seed, **{"vocab_size": 320, **sizes}), tokenizer

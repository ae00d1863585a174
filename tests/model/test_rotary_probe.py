"""The rotary table of each layer is found for every variant of the supported families, or refused by name."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, GlmConfig, GPT2Config, PhiConfig, StableLmConfig

from c2c_lightning.errors import PromptError, UnsupportedModelError
from c2c_lightning.kv.rotary import rotate
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.profiling.model_pair import number_tokenizer
from tests.tiny import FAMILIES, tiny_model

LONG = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 8.0, 16.0]}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "llama3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "yarn": (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            }
        },
    ),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    "dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}),
    "longrope": (
        "phi3",
        {
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **LONG},
            "original_max_position_embeddings": 96,
        },
    ),
    "two bases": (
        "gemma3",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            }
        },
    ),
}

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
OTHERS: dict[str, Any] = {
    "interleaved": CohereConfig(**SIZES),
    "partial": StableLmConfig(**SIZES, rope_parameters=PARTIAL),
    "partial (phi)": PhiConfig(**SIZES, rope_parameters=PARTIAL),
    "partial, interleaved": GlmConfig(**SIZES, head_dim=8, rope_parameters=PARTIAL),
}


def frozen(model: Any) -> FrozenLM:
    return FrozenLM(model, number_tokenizer(model.config.vocab_size), LMSpec("tiny"))


def from_config(config: Any) -> FrozenLM:
    torch.manual_seed(0)
    return frozen(AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def check(lm: FrozenLM, position: int = 77) -> None:
    """The position of a cached key can be removed, at a position that was not probed."""
    ids, ones = torch.tensor([[5, 9, 6]]), torch.ones(1, 3, dtype=torch.long)
    at = [lm.prefill(ids, ones, torch.arange(3)[None] + start) for start in (0, position)]
    for table, first, later in zip(lm.rotary, *at, strict=True):
        free = [
            rotate(
                layer.keys.float(),
                -(torch.arange(3)[:, None] + start).float() * torch.tensor(table.frequencies),
                table.interleaved,
            )
            for layer, start in ((first, 0), (later, position))
        ]
        torch.testing.assert_close(*free, atol=2e-4, rtol=1e-3)
        if table.frequencies:
            assert not torch.allclose(first.keys, later.keys, atol=1e-2)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_of_the_families(name: str) -> None:
    family, changes = VARIANTS[name]
    check(frozen(tiny_model(family, **changes)))


@pytest.mark.parametrize("name", OTHERS)
def test_partial_and_interleaved_rotation(name: str) -> None:
    lm = from_config(OTHERS[name])
    check(lm)
    assert {table.interleaved for table in lm.rotary} == {"interleaved" in name}
    assert {2 * len(table.frequencies) for table in lm.rotary} == {4 if "partial" in name else 8}


def test_layers_differ_where_the_model_has_two_bases() -> None:
    tables = frozen(tiny_model("gemma3", **VARIANTS["two bases"][1])).rotary
    assert tables[0] == tables[2] != tables[1]


def test_layers_without_rotation_are_found() -> None:
    assert [bool(table.frequencies) for table in frozen(tiny_model("smollm3")).rotary] == [True, True, False, True]


def test_half_precision_finds_the_same_tables() -> None:
    family, changes = VARIANTS["two bases"]
    model = tiny_model(family, **changes)
    exact = frozen(model).rotary
    for parameter in model.parameters():  # as loaded in bfloat16: the tables stay float32
        parameter.data = parameter.data.bfloat16()
    assert frozen(model).rotary == exact


def test_learned_positions_are_refused() -> None:
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    with pytest.raises(UnsupportedModelError, match=r"keys of layer 0 of tiny.*no known rotary embedding"):
        _ = from_config(config).rotary


def test_a_longer_sequence_than_the_probed_table_is_refused() -> None:
    family, changes = VARIANTS["longrope"]
    lm = frozen(tiny_model(family, **changes))
    ids = torch.ones(1, 97, dtype=torch.long)
    lm.prefill(ids, ids, torch.arange(97)[None])
    assert lm.rotary
    with pytest.raises(PromptError, match="rotary table of tiny for up to 96 tokens, but a sequence has 97"):
        lm.prefill(ids, ids, torch.arange(97)[None])

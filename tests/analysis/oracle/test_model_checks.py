"""Models whose cache cannot be enriched are refused by name."""

import pytest
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config

from c2c_lightning.analysis.oracle.model_checks import check_enrichable
from c2c_lightning.errors import PromptError, UnsupportedModelError
from c2c_lightning.model.load_lm import load_frozen
from tests.hybrids import frozen_hybrid
from tests.tiny import WINDOW, tiny_pair, tiny_tokenizer

SIZES = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2, "n_layer": 3, "n_head": 2, "initializer_range": 0.3}


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "smollm3", "olmo2"])
def test_rotary_models_are_accepted(family: str) -> None:
    check_enrichable(load_frozen(tiny_pair(family)), 300)


def test_hybrids_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="state mixes all tokens"):
        check_enrichable(frozen_hybrid("qwen3_5_text"), 100)


def test_a_window_narrower_than_the_prompt_is_refused() -> None:
    lm = load_frozen(tiny_pair("gemma3"))
    check_enrichable(lm, WINDOW)
    with pytest.raises(PromptError, match=f"windows of {WINDOW}"):
        check_enrichable(lm, WINDOW + 1)


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(PromptError, match="longer than the context"):
        check_enrichable(load_frozen(tiny_pair("llama")), 513)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (GPT2Config(n_embd=32, **SIZES), "depends on absolute positions"),
        (BloomConfig(hidden_size=32, **SIZES), "ignores the given positions"),
    ],
)  # fmt: skip
def test_positions_that_cannot_be_kept_are_refused(config: GPT2Config | BloomConfig, problem: str) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UnsupportedModelError, match=problem):
        check_enrichable(load_frozen((model, tiny_tokenizer())), 100)

"""Models that are refused by what their cache does, and models that are not."""

import pytest
import torch

from benchmarks.family_matrix.classes import LMClass
from c2c_lightning.errors import UnsupportedModelError
from c2c_lightning.kv.cache_probe import probe_cache
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        ("BertLMHeadModel", {}, "its attention is not causal"),
        ("TrOCRForCausalLM", {}, "attend to the output of an encoder"),
        ("BartForCausalLM", {}, "attend to the output of an encoder"),
        ("XLMRobertaForCausalLM", {"is_decoder": True}, "positions are not counted from zero"),
        ("CpmAntForCausalLM", {}, "36 entries for 4 tokens"),
        ("GitForCausalLM", {}, "continues from a padded cache gives other entries"),
        ("MusicgenMelodyForCausalLM", {}, "its code does not run on tokens, positions and a cache alone"),
        ("MoshiForCausalLM", {}, "its sliding window is no attention mask"),
        ("xLSTMForCausalLM", {}, "none of its 4 layers keep keys and values"),
        ("OpenAIGPTLMHeadModel", {}, "none of its 4 layers keep keys and values"),
    ],
)
def test_models_that_are_no_causal_decoders_with_a_cache(model: str, settings: dict[str, object], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"^the model.*{reason}|^{model}.*{reason}"):
        probe_cache(LMClass(model, settings=settings).build(), "the model")


def test_a_bidirectional_encoder_is_found_in_half_precision_too() -> None:
    with pytest.raises(UnsupportedModelError, match="not causal"):
        probe_cache(LMClass("RemBertForCausalLM").build().bfloat16(), "rembert")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen3", "gemma3", "qwen3_moe", "gpt_oss"])
def test_decoders_pass_in_every_precision(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family, layers=4, layer_types=None).to(dtype)
    assert probe_cache(model, family).num_layers == 4


def test_a_bert_that_is_a_decoder_is_one() -> None:
    assert probe_cache(LMClass("BertLMHeadModel", settings={"is_decoder": True}).build(), "bert").num_layers == 4

"""Lengths and ids that a model cannot process: named errors before the first forward pass, for receiver and sharer."""

import logging
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import FuserConfigError, GenerationError, PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_model, tiny_pair, tiny_tokenizer

GREEDY = {"do_sample": False, "eos_token_id": None}


def gpt2() -> Any:
    config = GPT2Config(
        vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    return AutoModelForCausalLM.from_config(config).eval()


def rotary() -> Any:
    return tiny_model("qwen3", max_position_embeddings=64)


def longrope(switch: int, long_factor: float) -> Any:
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [long_factor] * 4,
        "original_max_position_embeddings": switch, "partial_rotary_factor": 1.0, "attention_factor": 1.0,
    }  # fmt: skip
    return tiny_model("phi3", 0, rope_parameters=rope, original_max_position_embeddings=switch)


def fused(receiver: Any, mode: str = "prefill", **choices: Any) -> C2CModel:
    config = FuserConfig(
        **{"hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0, "gate_init": 1.0, "fusion_mode": mode} | choices
    )
    torch.manual_seed(0)
    return C2CModel(load_frozen((receiver, tiny_tokenizer())), [load_frozen(tiny_pair("llama", 1))], config).eval()


def prompt(length: int, last_id: int = 5) -> PromptBatch:
    return PromptBatch.shared(torch.tensor([[*range(3, 2 + length), last_id]]))


@pytest.mark.parametrize("make", [gpt2, rotary])
def test_a_prompt_longer_than_the_receivers_context(make: Any) -> None:
    with pytest.raises(PromptError, match=r"65 tokens is longer than the context .*\(64 tokens\)"):
        fused(make()).generate(prompt(65), max_new_tokens=1)


@pytest.mark.parametrize("make", [gpt2, rotary])
@pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
def test_an_answer_ends_where_the_context_ends(make: Any, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    model = fused(make(), mode)
    with caplog.at_level(logging.WARNING):
        ids = model.generate(prompt(60), max_new_tokens=50, **GREEDY)
    assert ids.shape[1] == 65  # the last of them is never processed
    assert "At most 5 instead of 50 new tokens" in caplog.text
    config = model.receiver.model.generation_config.__class__(max_new_tokens=50, **GREEDY)
    assert torch.equal(model.generate(prompt(60), generation_config=config), ids)


def test_a_response_beyond_the_context_has_no_loss() -> None:
    with pytest.raises(PromptError, match="context"):
        fused(rotary())(prompt(60), torch.arange(3, 13)[None])


@pytest.mark.parametrize("token", [320, -1])
def test_ids_without_an_embedding(token: int) -> None:
    with pytest.raises(PromptError, match="embeddings for 0 to 319"):
        fused(rotary()).generate(prompt(5, token), max_new_tokens=1)


def test_prompts_of_no_tokens_and_no_prompts() -> None:
    model = fused(rotary())
    with pytest.raises(PromptError, match="no tokens"):
        model.generate(PromptBatch.shared(torch.zeros(1, 0, dtype=torch.long)), max_new_tokens=1)
    with pytest.raises(PromptError, match="no conversations"):
        model.chat([])


@pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
def test_the_fused_cache_is_kept_where_rotary_tables_switch_between_equal_ones(mode: str) -> None:
    far, near = fused(longrope(400, 1.0), mode), fused(longrope(30, 1.0), mode)
    settings = {"max_new_tokens": 12, **GREEDY}
    assert torch.equal(near.generate(prompt(25), **settings), far.generate(prompt(25), **settings))


def test_a_fused_cache_is_not_continued_with_another_rotary_table() -> None:
    model, switch = fused(longrope(30, 4.0)), "uses another rotary table beyond 30 tokens"
    with pytest.raises(PromptError, match=switch):
        model.generate(prompt(25), max_new_tokens=12, **GREEDY)
    with pytest.raises(PromptError, match=switch):
        model(prompt(25), torch.arange(3, 15)[None])
    assert model.generate(prompt(25), max_new_tokens=5, **GREEDY).shape[1] == 30
    assert model.generate(prompt(40), max_new_tokens=5, **GREEDY).shape[1] == 45


@pytest.mark.parametrize(
    ("name", "value"), [("cache_implementation", "static"), ("cache_implementation", "dynamic"), ("use_cache", False)]
)
def test_the_models_own_cache_settings_are_for_plain_generation(name: str, value: object) -> None:
    model = fused(tiny_model("qwen3"), gate_init=-1.0)
    own = model.receiver.model.generation_config
    expected = model.generate(prompt(9), max_new_tokens=4, **GREEDY)
    setattr(own, name, value)
    assert torch.equal(model.generate(prompt(9), max_new_tokens=4, **GREEDY), expected)
    assert getattr(own, name) == value


@pytest.mark.parametrize("name", ["past_key_values", "attention_mask", "position_ids", "inputs_embeds", "input_ids"])
def test_arguments_that_belong_to_the_prompt_are_refused(name: str) -> None:
    with pytest.raises(GenerationError, match=f"`{name}` is not possible"):
        fused(rotary()).generate(prompt(5), max_new_tokens=1, **{name: torch.ones(1, 5)})


# peft asks transformers for an attribute under its former name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_loss_of_a_receiver_with_adapters() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    lm = peft.get_peft_model(tiny_model("qwen3", 0), config).eval()
    model, response = fused(lm, gate_init=-1.0), torch.tensor([[5, 6, 7]])
    ids = torch.cat([prompt(5).receiver.input_ids, response], 1)
    logits = lm(input_ids=ids).logits[:, -4:]
    torch.testing.assert_close(model(prompt(5), response).logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[5, 400]], [[1, 1]], "embeddings for 0 to 319"),
        ([[5, -100]], [[1, 1]], "-100 to 5"),
        ([[5], [6]], [[1], [1]], r"must be \(1, response\)"),
    ],
    ids=["too large", "label of ignored tokens", "rows"],
)
def test_responses_that_do_not_fit(ids: list[list[int]], mask: list[list[int]], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        fused(rotary())(prompt(4), torch.tensor(ids), torch.tensor(mask))


def test_a_batch_of_no_rows() -> None:
    model = fused(rotary())
    with pytest.raises(PromptError, match="has no tokens"):
        model.generate(PromptBatch.shared(torch.zeros(0, 3, dtype=torch.long)))


@pytest.mark.parametrize("values", [{"dtype": "float23"}, {"path": 3}, {"device": 0}, {"quantization": "int8"}])
def test_impossible_values_of_a_language_model(values: dict[str, Any]) -> None:
    spec = LMSpec("x")
    for name, value in values.items():  # one by one: the tests' type checker would refuse them first
        object.__setattr__(spec, name, value)
    with pytest.raises(FuserConfigError, match=next(iter(values))):
        spec.__post_init__()


def test_a_generation_config_of_a_model_that_caches_nothing_by_default() -> None:
    model = fused(tiny_model("qwen3"), gate_init=-1.0)
    expected = model.generate(prompt(9), max_new_tokens=4, **GREEDY)
    given = model.receiver.model.generation_config.__class__(max_new_tokens=4, **GREEDY, use_cache=False)
    assert torch.equal(model.generate(prompt(9), generation_config=given), expected)
    assert given.use_cache is False

"""The tiny models themselves: every family builds, runs, pads and repeats."""

import pytest
import torch

from tests.tiny import FAMILIES, tiny_model, tiny_pair, tiny_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_generates(family: str) -> None:
    model, tokenizer = tiny_pair(family)
    prompts = ["What is the capital of Arlen?", "Name a city, and the river that bends."]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    ids = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert ids.shape[1] <= batch["input_ids"].shape[1] + 4
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32


def test_same_seed_same_weights_and_untouched_random_state() -> None:
    before = torch.random.get_rng_state()
    first, second, other = tiny_model("llama", 1), tiny_model("llama", 1), tiny_model("llama", 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_tokenizers_split_differently_and_round_trip() -> None:
    text = "What is the capital of Arlen? Üöß 東京"
    ids = {style: tiny_tokenizer(style)(text)["input_ids"] for style in ("chatml", "header", "plain")}
    assert all(tiny_tokenizer(style).decode(ids[style]) == text for style in ids)
    assert ids["chatml"] != ids["header"] != ids["plain"]

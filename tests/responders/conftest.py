"""Tiny frozen models of different families and tokenizers."""

import pytest

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair


@pytest.fixture(scope="session")
def receiver() -> FrozenLM:
    return load_frozen(tiny_pair("qwen3"))


@pytest.fixture(scope="session")
def sharer() -> FrozenLM:
    return load_frozen(tiny_pair("llama", seed=1, style="header"))


@pytest.fixture
def questions() -> list[list[dict[str, str]]]:
    texts = ["What is the capital of Arlen?", "Name a city.", "Why does the river bend? The answer is 12."]
    return [[{"role": "user", "content": text}] for text in texts]

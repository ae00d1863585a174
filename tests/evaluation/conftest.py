"""A tiny fused pair whose tokenizers differ, with a fuser strong enough that its caches change the answers."""

import pytest
import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair


def fused_pair(token_alignment: str = "span", seed: int = 0) -> C2CModel:
    """A random fused model: open gates, large projections."""
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, token_alignment=token_alignment)  # type: ignore[arg-type]
    style = "chatml" if token_alignment == "identity" else "header"
    receiver, sharer = load_frozen(tiny_pair("qwen3")), load_frozen(tiny_pair("llama", seed=1, style=style))  # type: ignore[arg-type]
    torch.manual_seed(seed)
    model = C2CModel(receiver, [sharer], config).eval()
    model.fuser.force_gates(is_open=True)
    with torch.no_grad():
        for parameter in model.fuser.parameters():
            if parameter.ndim > 2:
                parameter.mul_(3.0)
    return model


@pytest.fixture(scope="session")
def c2c() -> C2CModel:
    return fused_pair()


@pytest.fixture
def questions() -> list[list[dict[str, str]]]:
    texts = [
        "What is the capital of Arlen?",
        "Name a city.",
        "Why does the river bend? The answer is 12.",
        "Which way?",
    ]
    return [[{"role": "user", "content": text}] for text in texts]

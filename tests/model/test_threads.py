"""Several threads on one model: forward passes take turns, so every answer is the one of a single thread."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

QUESTIONS = [[{"role": "user", "content": "City? " * n}] for n in (1, 30, 3)]
SETTINGS = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}


def _pair(mode: str) -> tuple[C2CModel, C2CModel]:
    """Two fused models in which the same language models have swapped roles."""
    first, second = load_frozen(tiny_pair("qwen3", 0)), load_frozen(tiny_pair("llama", 1))
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, gate_init=1.0, fusion_mode=mode)
    torch.manual_seed(0)
    return C2CModel(first, [second], config).eval(), C2CModel(second, [first], config).eval()


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_eight_threads_give_the_answers_of_one(mode: str) -> None:
    models = _pair(mode)
    assert models[0].receiver.gains_by_ragged(models[0].encode(QUESTIONS).receiver.mask)

    def answers(number: int) -> list[list[int]]:
        model = models[number % 2]
        # Every third call is a ragged batch, which changes the attention function of the model while it runs.
        conversations = QUESTIONS if number % 3 == 0 else [QUESTIONS[number % 3]]
        ids: list[list[int]] = model.generate(model.encode(conversations), **SETTINGS).tolist()
        return ids

    expected = [answers(number) for number in range(6)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answers, range(200)))
    assert all(ids == expected[number % 6] for number, ids in enumerate(found))

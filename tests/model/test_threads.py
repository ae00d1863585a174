"""Several threads on one model: forward passes take turns, so every answer is the one of a single thread."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.model.locks import let_others_run
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


class GivingWay(StoppingCriteria):
    """Lets other threads run after each token, and notes whose token it was."""

    def __init__(self, model: C2CModel, order: list[int]) -> None:
        self.models, self.order = (model.receiver, *model.sharers), order

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        self.order.append(threading.get_ident())
        let_others_run(self.models)
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_generations_that_take_turns_give_the_answers_of_one_and_change_no_setting(mode: str) -> None:
    model, order = _pair(mode)[0], list[int]()
    settings = {**SETTINGS, "max_new_tokens": 12}
    expected = [model.generate(model.encode([question]), **settings).tolist() for question in QUESTIONS]
    config = model.receiver.model.generation_config
    config.use_cache = False

    def answer(number: int) -> list[list[int]]:
        criteria = StoppingCriteriaList([GivingWay(model, order)])
        ids: list[list[int]] = model.generate(
            model.encode([QUESTIONS[number]]), stopping_criteria=criteria, **settings
        ).tolist()
        return ids

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(answer, range(3))) == expected
    assert config.use_cache is False
    changes = sum(a != b for a, b in pairwise(order))
    assert changes > 12  # of 36 tokens: none waits for the end of another

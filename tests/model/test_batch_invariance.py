"""Answers alone and in a padded batch, for prompts of several spans.

In float32 logits of the two differ by up to 2e-5, so that near ties (one answer in some thousands of random models) may
be decided otherwise. In float64 they agree, so that is rounding alone.
"""

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.data.token_batch import SharerTokens, TokenBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.model.test_spans import together
from tests.tiny import tiny_pair

SETTINGS = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def frozen(family: str, seed: int, dtype: torch.dtype) -> FrozenLM:
    model, tokenizer = tiny_pair(family, seed)
    return load_frozen((model.to(dtype), tokenizer))


def fused(receiver: str, dtype: torch.dtype) -> C2CModel:
    torch.manual_seed(3)
    sharers = [frozen("llama", 1, dtype), frozen("qwen2", 2, dtype)]
    model = C2CModel(frozen(receiver, 0, dtype), sharers, FuserConfig(hidden_dim=16, intermediate_dim=16))
    model.fuser.force_gates(is_open=True)
    return model.eval().to(dtype)


def random_prompt(g: torch.Generator) -> PromptBatch:
    """A prompt with spans of random length, each fused with a random set of sharers."""
    length = int(torch.randint(6, 24, (1,), generator=g))
    sets = torch.randint(0, 4, (length,), generator=g).repeat_interleave(3)[:length]
    sharers = []
    for number in range(2):
        ids = torch.randint(3, 300, (1, length + number), generator=g)
        index = (torch.arange(length) + number).masked_fill((sets >> number) % 2 == 0, -1)
        index[-1] = -1
        sharers.append(SharerTokens(ids, source_index=index[None]))
    return PromptBatch(TokenBatch(torch.randint(3, 300, (1, length), generator=g)), tuple(sharers))


@pytest.mark.parametrize("receiver", ["qwen3", "gemma3"])
def test_answers_alone_and_in_a_batch_agree_in_float64(receiver: str) -> None:
    model, g = fused(receiver, torch.float64), torch.Generator().manual_seed(11)
    prompts = [random_prompt(g) for _ in range(5)]
    batch = together(prompts)
    answers = model.generate(batch, **SETTINGS)[:, batch.num_receiver_tokens :]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert model.generate(prompt, **SETTINGS)[0, prompt.num_receiver_tokens :].tolist() == answer.tolist()
    logits = model(batch, answers).logits
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(model(prompt, answers[row : row + 1]).logits[0], logits[row], atol=1e-10, rtol=0)

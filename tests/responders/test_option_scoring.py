"""Options that begin alike share their tokens' pass."""

import pytest
import torch

from c2c_lightning.data.batch import TokenBatch
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.responders.option_scoring import score_options

PROMPTS = torch.tensor([[5, 6, 7], [8, 9, 10]])
OPTIONS = [[[20], [21], [22, 23], [22, 24]], [[30, 31, 32], [33]]]


def test_a_row_runs_for_each_distinct_beginning(receiver: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def counted(tokens: TokenBatch, prefix: ResponsePrefix) -> torch.Tensor:
        rows.append(len(tokens.input_ids))
        return FrozenLM.hidden_states(receiver, tokens, prefix)

    monkeypatch.setattr(receiver, "hidden_states", counted)
    tokens = TokenBatch(PROMPTS)
    kv = receiver.prefill_tokens(tokens, until=2)
    scores = score_options(receiver, tokens, kv, OPTIONS)
    # First prompt: no token (20, 21), and 22; second: 30 31, and none.
    assert rows == [4]
    for prompt, options, found in zip(PROMPTS, OPTIONS, scores, strict=True):
        for option, value, greedy in zip(options, found.log_probabilities, found.is_greedy, strict=True):
            ids = torch.tensor([[*prompt.tolist(), *option]])
            logits = receiver.model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            chosen = torch.tensor(option)
            assert value == pytest.approx(float(logits.gather(1, chosen[:, None]).sum()), abs=1e-4)
            assert greedy == torch.equal(logits.argmax(-1), chosen)


def test_prompts_may_have_several_tokens_outside_of_the_cache(receiver: FrozenLM) -> None:
    tokens = TokenBatch(PROMPTS)
    several = score_options(receiver, tokens, receiver.prefill_tokens(tokens, until=1), OPTIONS)
    one = score_options(receiver, tokens, receiver.prefill_tokens(tokens, until=2), OPTIONS)
    for a, b in zip(several, one, strict=True):
        assert a.log_probabilities == pytest.approx(b.log_probabilities, abs=1e-4)

"""`layer_alignment: answer`: the layer whose values hold the next token is found."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch, TrainingBatch
from c2c_lightning.data.token_batch import TokenBatch
from c2c_lightning.errors import FuserConfigError, UnsupportedModelError
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.answer_probe import probe_answers
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

KNOWING = 1


class Knowing(FrozenLM):
    """A model of random values, but for layer `KNOWING`: a token's values are the output embedding of the next one."""

    def prefill_tokens(self, tokens: TokenBatch, until: int, *args: object, **kwargs: object) -> LayerStack:
        """Four layers of two heads."""
        following = self.model.get_output_embeddings().weight[tokens.input_ids[:, 1 : until + 1]]
        known = following.unflatten(-1, (2, -1)).transpose(1, 2)
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(known.shape, generator=generator) for _ in range(4)]
        values = [known if layer == KNOWING else drawn for layer, drawn in enumerate(noise)]
        return [LayerKV(value, value) for value in values]


@pytest.fixture(scope="module")
def receiver() -> FrozenLM:
    return load_frozen(tiny_pair("qwen3"))


def batches(count: int = 20, supervised: int = 12) -> Iterator[TrainingBatch]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        prompt = PromptBatch.shared(torch.randint(3, 300, (8, 5), generator=generator))
        response = torch.randint(3, 300, (8, 12), generator=generator)
        yield TrainingBatch(prompt, response, (torch.arange(12) < supervised).expand(8, 12))


def test_the_upper_half_reads_the_layer_that_knows_the_next_token(receiver: FrozenLM) -> None:
    model, tokenizer = tiny_pair("qwen3")
    seen: list[int] = []
    sharer = Knowing(model, tokenizer, replace(receiver.spec))
    (found,) = probe_answers(receiver, [sharer], batches(), num_tokens=1000, done=seen.append)
    assert found.layer_map == [None, None, KNOWING, KNOWING]
    # Not 1: the last response token is no input, so that this sharer does not know it.
    assert float(found.scores[0, KNOWING]) > 0.85
    assert float(found.scores[0].sort().values[-2]) < 0.1
    assert seen == [96] * 11, "no more batches than needed"
    # Random responses: the receiver itself cannot know them.
    (other,) = probe_answers(receiver, [receiver], batches())
    assert float(other.scores.max()) < 0.1


def test_text_that_all_rows_begin_with_is_read_once(receiver: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, passes = torch.Generator().manual_seed(0), []
    examples = torch.randint(3, 300, (1, 20), generator=generator).expand(8, 20)
    rows = [
        TrainingBatch(
            PromptBatch.shared(torch.cat([examples, torch.randint(3, 300, (8, 5), generator=generator)], 1)),
            torch.randint(3, 300, (8, 12), generator=generator),
            torch.ones(8, 12, dtype=torch.bool),
        )
        for _ in range(6)
    ]
    prefill = receiver.prefill
    monkeypatch.setattr(receiver, "prefill", lambda ids, *rest: passes.append(ids.shape) or prefill(ids, *rest))
    (found,) = probe_answers(receiver, [receiver], rows)
    assert passes == [(1, 20), *[(8, 16)] * 6]
    monkeypatch.setattr("c2c_lightning.model.answer_probe.prefill_prompts", FrozenLM.prefill_tokens)
    (whole,) = probe_answers(receiver, [receiver], rows)
    torch.testing.assert_close(found.scores, whole.scores, atol=1e-3, rtol=0)


def test_unsupervised_tokens_are_left_out(receiver: FrozenLM) -> None:
    seen: list[int] = []
    probe_answers(receiver, [receiver], batches(10, supervised=3), done=seen.append)
    assert seen == [24] * 10


def test_too_few_tokens_are_refused(receiver: FrozenLM) -> None:
    with pytest.raises(FuserConfigError, match=r"has 48, fewer than 64. Give more rows"):
        probe_answers(receiver, [receiver], batches(2, supervised=3))


def test_a_receiver_without_output_embeddings_is_named(receiver: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver.model, "get_output_embeddings", lambda: None)
    with pytest.raises(UnsupportedModelError, match="names no output embeddings"):
        probe_answers(receiver, [receiver], batches())

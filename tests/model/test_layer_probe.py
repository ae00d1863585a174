"""Layers found by evidence: a sharer that is the receiver with its layers in another order is put in order again."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.layer_probe import probe_layers
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_pair

ORDER = [2, 0, 3, 1]


class Reordered(FrozenLM):
    """The receiver whose layer m is layer ORDER[m], with values in another basis."""

    def prefill_tokens(self, *args: object, **kwargs: object) -> LayerStack:
        """As the receiver."""
        kv = super().prefill_tokens(*args, **kwargs)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(1)
        basis = torch.randn(kv[0].values.shape[-1], kv[0].values.shape[-1], generator=generator)
        return [LayerKV(kv[n].keys, kv[n].values @ basis) for n in ORDER]


@pytest.fixture(scope="module")
def receiver() -> FrozenLM:
    return load_frozen(tiny_pair("qwen3"))


def prompts(tokens: int = 24, batches: int = 6) -> Iterator[PromptBatch]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(batches):
        yield PromptBatch.shared(torch.randint(3, 300, (8, tokens), generator=generator))


def test_each_layer_finds_its_own(receiver: FrozenLM) -> None:
    model, tokenizer = tiny_pair("qwen3")
    sharer = Reordered(model, tokenizer, replace(receiver.spec))
    seen: list[int] = []
    (found,) = probe_layers(receiver, [sharer], prompts(), num_tokens=500, done=seen.append)
    assert found.layer_map == [ORDER.index(n) for n in range(4)]
    assert found.scores.shape == (4, 4)
    assert float(found.scores.max(1).values.min()) > 0.9
    assert seen == [184, 184, 184], "no more batches than needed"


def test_too_few_tokens_are_refused(receiver: FrozenLM) -> None:
    with pytest.raises(FuserConfigError, match=r"has 16 such tokens, fewer than 64"):
        probe_layers(receiver, [receiver], prompts(tokens=3, batches=1))


def test_text_that_all_prompts_begin_with_is_read_once_by_the_sharer(
    receiver: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny_pair("qwen3")
    sharer = FrozenLM(model, tokenizer, replace(receiver.spec))
    passes, prefill, examples = [], sharer.prefill, torch.arange(3, 23).expand(8, 20)
    monkeypatch.setattr(sharer, "prefill", lambda ids, *rest: passes.append(ids.shape) or prefill(ids, *rest))
    tokens = [torch.cat([examples, own.receiver.input_ids], 1) for own in prompts(tokens=6, batches=2)]
    probe_layers(receiver, [sharer], map(PromptBatch.shared, tokens))
    assert passes == [(1, 20), (8, 5), (8, 5)]

"""Rows whose answers have ended leave the batch: the same ids from fewer passes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.model import ended_rows, generation
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.fusion_modes import MODES
from tests.model.test_families import prompts
from tests.model.test_generation import NEW, PAIRS, build, complete

modes = pytest.mark.parametrize("mode", ["prefill", "prompt", "decode"])
pairs = pytest.mark.parametrize(("receiver", "sharer"), PAIRS)


def some_prompts() -> PromptBatch:
    """Six rows."""
    prompt = prompts()
    both = PromptBatch.shared(prompt.receiver.input_ids.flip(1) * prompt.receiver.mask, prompt.receiver.mask)
    return PromptBatch.shared(
        torch.cat([prompt.receiver.input_ids, both.receiver.input_ids]), torch.cat([prompt.receiver.mask] * 2)
    )


def at_once(model: C2CModel, prompt: PromptBatch, **settings: Any) -> Tensor:
    """The ids of one call of `generate`."""
    with torch.no_grad():
        ids: Tensor = generation.generate(model.receiver, prompt, model.fuse(prompt), **complete(model, settings))
    return ids


def ends_of(model: C2CModel, prompt: PromptBatch) -> list[int]:
    """End tokens with which rows end after one, two and more tokens, and some never."""
    answers = at_once(model, prompt, max_new_tokens=NEW, do_sample=False, eos_token_id=None)
    new = answers[:, prompt.num_receiver_tokens :]
    return [int(new[0, 0]), int(new[1, 1]), int(new[2, 3])]


class RowPasses:
    """Counts the rows of all passes of a model."""

    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        self.handle = module.register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.count += len(kwargs["input_ids"])

    def taken(self) -> int:
        """The count, once."""
        count, self.count = self.count, 0
        return count


@modes
@pairs
def test_the_ids_are_those_of_one_call_from_fewer_rows(receiver: str, sharer: str, mode: str) -> None:
    model, prompt = build(receiver, sharer, mode, True), some_prompts()
    settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": ends_of(model, prompt)}
    fused = [model.prefill(prompt) for _ in range(2)]
    passes = RowPasses(model.receiver.model)
    try:
        caches = [MODES[mode].generation_cache(model, one) for one in fused]
        whole = generation.generate(model.receiver, prompt, caches[0], **complete(model, settings))
        all_rows = passes.taken()
        leaving = ended_rows.generate_rows(model.receiver, prompt, caches[1], **complete(model, settings))
        assert torch.equal(leaving, whole)
        assert passes.taken() < all_rows
    finally:
        passes.handle.remove()


@modes
def test_rows_that_never_end_stop_at_the_limit(mode: str) -> None:
    model, prompt = build("qwen3", "llama", mode, True), some_prompts()
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": ends_of(model, prompt)}
    ids = model.generate(prompt, **complete(model, settings))
    assert ids.shape[1] == prompt.num_receiver_tokens + 3
    assert torch.equal(ids, at_once(model, prompt, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"do_sample": False, "min_new_tokens": 2},
        {"do_sample": False, "num_beams": 2},
        {"do_sample": False, "eos_token_id": None},
        {"do_sample": False, "return_dict_in_generate": True},
    ],
    ids=str,
)
def test_what_depends_on_the_whole_batch_is_one_call(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = build("qwen3", "llama", "prefill", True), some_prompts()
    ends, calls = ends_of(model, prompt), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return generation.generate(*args, **kwargs)

    monkeypatch.setattr(ended_rows, "generate", counted)
    model.generate(prompt, **complete(model, {"max_new_tokens": NEW, "eos_token_id": ends, **settings}))
    assert len(calls) == 1
    assert "stopping_criteria" not in calls[0]
    model.generate(prompt, **complete(model, {"max_new_tokens": NEW, "eos_token_id": ends, "do_sample": False}))
    assert len(calls) > 2


def test_a_sharded_receiver_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes have to make equally many passes."""
    model, prompt = build("qwen3", "llama", "prefill", True), some_prompts()
    settings = complete(model, {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": ends_of(model, prompt)})
    assert ended_rows._can_leave(model.receiver, settings)
    monkeypatch.setattr(model.receiver, "is_sharded", True)
    assert not ended_rows._can_leave(model.receiver, settings)


def test_a_full_context_ends_all_rows(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model, prompt = build("qwen3", "llama", "prefill", True), some_prompts()
    ends = ends_of(model, prompt)
    monkeypatch.setattr(generation, "room_behind", lambda *args: 3)
    monkeypatch.setattr(ended_rows, "room_behind", lambda *args: 3)
    ids = model.generate(prompt, **complete(model, {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": ends}))
    assert ids.shape[1] == prompt.num_receiver_tokens + 3
    assert [record.message[:9] for record in caplog.records].count("At most 3") == 1

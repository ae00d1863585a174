"""Growing chats: kept caches change nothing but the work."""

import time

import pytest
import torch

from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.serving.answer_row import AnswerRow, AnswerSettings
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.prefix_cache import PrefixCache, size_of
from c2c_lightning.serving.prepared_prompt import C2CChoices
from c2c_lightning.serving.request_control import RequestControl
from tests.serving.served import ask, catalogue, fused_model

TURNS = ["What is the capital of Arlen and why does the river bend?", "Name a city.", "Is the answer Velmora?"]


def answers(models: ModelCatalogue, name: str, conversations: list[list[dict[str, str]]]) -> list[AnswerRow]:
    served = models.get(name)
    rows = [
        AnswerRow(served.prepare(c, C2CChoices()), AnswerSettings(10, top_logprobs=0), RequestControl(60.0))
        for c in conversations
    ]
    served.answer(rows)
    return rows


@pytest.mark.parametrize("name", ["receiver", "sharer", "c2c", pytest.param("t2t", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "choices", [{}, pytest.param({"span_order": "one_pass"}, marks=pytest.mark.slow)], ids=["sectioned", "one_pass"]
)
def test_growing_chats_are_answered_as_without_kept_prompts(name: str, choices: dict[str, str]) -> None:
    kept, bare = catalogue(fused_model(**choices)), catalogue(fused_model(**choices), prefix_bytes=0)
    chats = [ask(f"{TURNS[0]} {n}") for n in range(2)]
    for turn in (*TURNS[1:], ""):
        found = answers(kept, name, [*chats, ask("Hi")])  # one row of the batch has no kept prompt
        expected = answers(bare, name, [*chats, ask("Hi")])
        assert [row.ids for row in found] == [row.ids for row in expected]
        for one, other in zip(found, expected, strict=True):
            values = [torch.tensor([entry.log_probability for entry in row.logprobs]) for row in (one, other)]
            torch.testing.assert_close(*values, atol=1e-4, rtol=1e-4)
        chats = [
            [*chat, {"role": "assistant", "content": row.text}, *ask(turn)]
            for chat, row in zip(chats, found, strict=False)
        ]
    assert len(bare.prefixes) == 0 < len(kept.prefixes)
    # Text-to-text puts the message between the earlier turns and the question.
    assert found[0].facts["cached_tokens"] > 40 or name == "t2t"


@pytest.mark.parametrize("mode", ["prompt", pytest.param("decode", marks=pytest.mark.slow)])
def test_other_fusion_modes_reuse_prompts_alone(mode: str) -> None:
    kept, bare = catalogue(fused_model(fusion_mode=mode)), catalogue(fused_model(fusion_mode=mode), prefix_bytes=0)
    chats = [ask(f"{TURNS[0]} {n}") for n in range(2)]
    for _ in range(2):
        for batch in (chats, chats[:1]):
            found, expected = answers(kept, "c2c", batch), answers(bare, "c2c", batch)
            assert [row.ids for row in found] == [row.ids for row in expected]
        chats = [[*chat, {"role": "assistant", "content": "B"}, *ask("Why?")] for chat in chats]
    assert len(kept.prefixes) > 0


def test_a_reused_prompt_is_computed_in_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    models, seen = catalogue(), list[int]()
    fused: C2CModel = models.get("c2c").model  # type: ignore[attr-defined]
    prefill = fused.receiver.prefill

    def counted(ids, *args, **kwargs):  # noqa: ANN001, ANN002, ANN003, ANN202
        seen.append(ids.numel())
        return prefill(ids, *args, **kwargs)

    monkeypatch.setattr(fused.receiver, "prefill", counted)
    long = ask(TURNS[0] * 3)
    row = answers(models, "c2c", [long])[0]
    first, length = sum(seen), len(row.prompt.encoded.receiver_ids)
    seen.clear()
    answers(models, "c2c", [[*long, {"role": "assistant", "content": row.text}, *ask("Why?")]])
    assert first == length - 1
    assert sum(seen) < 40 < first


def test_kept_prompts_stay_within_their_bytes_and_the_oldest_go_first() -> None:
    model = fused_model()
    prompts = [model.prefill(model.encode([ask(f"{TURNS[0]} {n * 'B'}")])) for n in range(1, 5)]
    cache = PrefixCache(sum(map(size_of, prompts[:2])) + size_of(prompts[2]) // 2)
    ids = [prompt.prompt.receiver.input_ids[0].tolist() for prompt in prompts]
    cache.keep("group", prompts[0])
    cache.keep("group", prompts[1])
    assert cache.find("group", ids[0])[0] is prompts[0]  # used: now the newest
    cache.keep("group", prompts[2])
    assert cache.num_bytes <= cache.max_bytes
    assert cache.find("group", ids[1])[1] < len(ids[1])
    assert cache.find("group", ids[2]) == (prompts[2], len(ids[2]))
    assert cache.find("other", ids[2]) == (None, 0)
    PrefixCache(10).keep("group", prompts[0])  # too large for any place


def test_a_longer_chat_takes_the_place_of_its_beginning() -> None:
    model, cache = fused_model(), PrefixCache(2**30)
    chat = ask(TURNS[0])
    for turn in TURNS[1:]:
        cache.keep("group", model.prefill(model.encode([chat])))
        chat = [*chat, {"role": "assistant", "content": "B"}, *ask(turn)]
        assert len(cache) == 1
    cache.keep("other", model.prefill(model.encode([chat])))
    cache.keep("group", model.prefill(model.encode([ask("Another conversation. " * 4)])))
    assert len(cache) == 3


def test_looking_for_a_prefix_is_fast() -> None:
    model, cache = fused_model(), PrefixCache(2**30)
    for n in range(8):
        cache.keep("group", model.prefill(model.encode([ask(f"{n} {TURNS[0]}" * 4)])))
    start = time.perf_counter()
    cache.find("group", list(range(400)))
    assert time.perf_counter() - start < 0.1

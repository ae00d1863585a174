"""Content controls: the effect of each, and its independence of batches."""

import copy
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.controls import (
    GatesClosed,
    Mismatched,
    Noise,
    Shuffled,
    Zero,
    noise_like,
)
from c2c_lightning.evaluation.mismatched import DonorPool
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.kv.layer import LayerKV
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.last_prefill import LastPrefill
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import ReceiverOnly
from tests.evaluation.conftest import fused_pair

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}


def texts(responder: Any, questions: Any) -> list[str]:
    return [answer.text for answer in responder.respond(questions, **GREEDY)]


def controls(model: C2CModel, questions: Any) -> list[C2CResponder]:
    return [
        Mismatched(model, DonorPool(questions)),
        Shuffled(model, name="c2c:shuffled"),
        Zero(model, name="c2c:zero"),
        Noise(model, name="c2c:noise"),
        GatesClosed(model, name="c2c:gates_closed"),
    ]


@pytest.mark.parametrize("alignment", ["span", "span_template", "span_cut", "identity"])
def test_closed_gates_are_the_receiver_token_for_token(alignment: str, questions: Any) -> None:
    model = fused_pair(alignment)
    receiver, closed = ReceiverOnly(model.receiver), GatesClosed(model)
    assert texts(closed, questions) == texts(receiver, questions)
    assert all(answer.matches_unfused for answer in closed.respond(questions, **GREEDY))
    options = [["Velmora", "a city"]] * len(questions)
    for score, alone in zip(closed.score(questions, options), receiver.score(questions, options), strict=True):
        assert score.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-5)
        assert score.matches_unfused


@pytest.mark.parametrize("fusion_mode", ["prefill", "prompt", "decode"])
def test_closed_gates_match_the_unfused_receiver_in_half_precision(fusion_mode: Any, questions: Any) -> None:
    model = fused_pair()
    config = replace(model.fuser.config, fusion_mode=fusion_mode)
    halves = [
        load_frozen((copy.deepcopy(lm.model).bfloat16(), lm.tokenizer)) for lm in (model.receiver, *model.sharers)
    ]
    half = C2CModel(halves[0], halves[1:], config).eval()
    half.fuser.load_state_dict(model.fuser.state_dict())
    closed = GatesClosed(half)
    assert all(answer.matches_unfused for answer in closed.respond(questions, **GREEDY))
    options = [["Velmora", "a city"]] * len(questions)
    plain = ReceiverOnly(half.receiver).score(questions, options)
    for mine, theirs in zip(closed.score(questions, options), plain, strict=True):
        assert mine.matches_unfused
        assert mine.log_probabilities == pytest.approx(theirs.log_probabilities, rel=0.02)


def test_closed_gates_are_exact_at_released_positions(questions: Any) -> None:
    """Padding inside the receiver's prompt shifts its positions: its answers differ from the bare receiver's."""
    model = fused_pair("longest")
    closed, alone = GatesClosed(model), ReceiverOnly(model.receiver)
    answers, bare = closed.respond(questions, **GREEDY), alone.respond(questions, **GREEDY)
    assert all(answer.matches_unfused for answer in answers)
    assert [answer.shifted_positions for answer in answers] == [True] * len(questions)
    assert [answer.text for answer in answers] != [answer.text for answer in bare]
    assert not any(answer.shifted_positions for answer in GatesClosed(fused_pair("span")).respond(questions, **GREEDY))


def test_gates_are_restored_after_an_error(c2c: C2CModel, questions: Any) -> None:
    before = {name: value.clone() for name, value in c2c.fuser.state_dict().items()}
    with pytest.raises((TypeError, ValueError)):
        GatesClosed(c2c).respond(questions, max_new_tokens="many")
    assert all(torch.equal(value, before[name]) for name, value in c2c.fuser.state_dict().items())


def test_closed_gates_need_gates(questions: Any) -> None:
    model = fused_pair()
    ablation = C2CModel(model.receiver, model.sharers, FuserConfig(kind="fuse", hidden_dim=16, intermediate_dim=16))
    with pytest.raises(BenchmarkError, match="kind fuse has none"):
        GatesClosed(ablation).respond(questions, **GREEDY)


def test_every_control_changes_the_answers(c2c: C2CModel, questions: Any) -> None:
    right = texts(C2CResponder(c2c), questions)
    for control in controls(c2c, questions):
        assert texts(control, questions) != right, control.name


@pytest.mark.parametrize("fusion_mode", ["prefill", "prompt", "decode"])
def test_controls_share_one_prefill_of_the_sharers(
    fusion_mode: Any, questions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fused_pair()
    model.fuser.config = replace(model.fuser.config, fusion_mode=fusion_mode)
    kinds = [Shuffled, Zero, Noise, GatesClosed]
    alone = [kind(model).respond(questions, **GREEDY) for kind in kinds]
    options = [["Velmora", "a city"]] * len(questions)
    scores = [kind(model).score(questions, options) for kind in kinds]
    passes = Mock(wraps=model.prefill_sharers)
    monkeypatch.setattr(model, "prefill_sharers", passes)
    last = LastPrefill(model)
    together = [kind(model, last=last) for kind in kinds]
    for expected, control in zip(alone, together, strict=True):
        assert [a.text for a in control.respond(questions, **GREEDY)] == [a.text for a in expected]
    # `GatesClosed` prefills no sharer, (), for the passes that it compares with.
    assert [call.args[1:] for call in passes.call_args_list] == [(), ((),)]
    for wanted, control in zip(scores, together, strict=True):
        assert [s.log_probabilities for s in control.score(questions, options)] == [s.log_probabilities for s in wanted]
    assert [call.args[1:] for call in passes.call_args_list] == [(), ((),), ((),)]
    together[0].respond(questions[:2], **GREEDY)
    assert [call.args[1:] for call in passes.call_args_list] == [(), ((),), ((),), ()]


def test_a_control_that_reuses_a_prefill_reports_its_time(c2c: C2CModel, questions: Any) -> None:
    last = LastPrefill(c2c)
    Zero(c2c, last=last).respond(questions, **GREEDY)
    last.seconds = 40.0
    answer = Noise(c2c, last=last).respond(questions, **GREEDY)[0]
    assert (answer.phases or {})["prefill_sharer"] == 40.0 / len(questions)


def test_an_answer_alone_is_the_answer_in_a_batch(c2c: C2CModel, questions: Any) -> None:
    for responder in [C2CResponder(c2c), *controls(c2c, questions)]:
        together = texts(responder, questions)
        assert together == [texts(responder, [question])[0] for question in questions], responder.name


def test_donor_is_another_question_of_similar_length(c2c: C2CModel) -> None:
    pool = [[{"role": "user", "content": "q" * n + "?" * (n % 3)}] for n in range(1, 200)]
    donors = DonorPool(pool)
    for row, conversation in enumerate(pool):
        chosen = {donors.donor(QuestionPrompt(conversation), draw) for draw in range(3)}
        assert len(chosen) == 3
        assert row not in chosen
        lengths = [abs(len(pool[donor][0]["content"]) - len(conversation[0]["content"])) for donor in chosen]
        assert max(lengths) <= 20


def test_donor_has_the_same_choices_if_possible() -> None:
    groups = ["even" if n % 2 == 0 else "odd" for n in range(29)] + ["alone"]
    pool = [
        QuestionPrompt([{"role": "user", "content": f"question {n}"}], choices=[group, "other"])
        for n, group in enumerate(groups)
    ]
    donors = DonorPool(pool)
    for row in range(29):
        assert groups[donors.donor(pool[row])] == groups[row]
    assert donors.donor(pool[29]) != 29


def test_the_same_question_about_another_document_is_a_donor(c2c: C2CModel) -> None:
    asked = [{"role": "user", "content": "What is the code?"}]
    pool = [QuestionPrompt(asked, sharer=[{"role": "user", "content": f"The code is {n}."}]) for n in (12, 34)]
    control = Mismatched(c2c, DonorPool(pool))
    assert control.donors(pool) == [1, 0]


def test_one_question_has_no_donor() -> None:
    with pytest.raises(BenchmarkError, match="at least two questions"):
        DonorPool([[{"role": "user", "content": "same"}]] * 3)


def test_mismatched_sharers_read_the_donor(c2c: C2CModel, questions: Any) -> None:
    control = Mismatched(c2c, DonorPool(questions))
    prompt = control.encode(questions)
    donors = c2c.encode([questions[row] for row in control.donors(questions)])
    assert torch.equal(prompt.receiver.input_ids, c2c.encode(questions).receiver.input_ids)
    assert torch.equal(prompt.sharers[0].input_ids, donors.sharers[0].input_ids)


def test_shuffled_permutes_the_source_indices(c2c: C2CModel, questions: Any) -> None:
    plain, shuffled = (kind(c2c).encode(questions).sharers[0].index for kind in (C2CResponder, Shuffled))
    assert torch.equal(plain.sort(1).values, shuffled.sort(1).values)
    assert torch.equal(plain < 0, shuffled < 0)
    assert not torch.equal(plain, shuffled)


def test_noise_has_the_mean_and_spread_of_each_head() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1.0, 4.0)[:, None, None]
    real = torch.ones(2, 4000, dtype=torch.bool)
    real[1, :1000] = False
    keys = torch.randn(2, 3, 4000, 8, generator=generator) * scale + 5 * scale
    keys[1, :, :1000] = 1e6
    noisy = noise_like([LayerKV(keys, keys)], real, [1, 2])[0].keys
    for row in range(2):
        for head in range(3):
            given, drawn = keys[row, head, real[row]], noisy[row, head, real[row]]
            assert float(drawn.mean()) == pytest.approx(float(given.mean()), rel=0.02)
            assert float(drawn.std()) == pytest.approx(float(given.std()), rel=0.02)
            assert abs(float(torch.corrcoef(torch.stack([given.flatten(), drawn.flatten()]))[0, 1])) < 0.02


def test_phases_sum_to_the_seconds_of_an_answer(c2c: C2CModel, questions: Any) -> None:
    answer = C2CResponder(c2c, measure_latency=True).respond(questions[:1], **GREEDY)[0]
    assert set(answer.phases or {}) == {"prefill_sharer", "prefill_receiver", "fuse", "decode"}
    assert sum((answer.phases or {}).values()) == pytest.approx(answer.seconds)
    assert not c2c.fuser._forward_hooks
    assert not c2c.fuser._forward_pre_hooks


@pytest.mark.parametrize("fusion_mode", ["prefill", "prompt", "decode"])
def test_option_scores_are_those_of_the_teacher_forced_pass(fusion_mode: Any, questions: Any) -> None:
    c2c = fused_pair()
    c2c.fuser.config = replace(c2c.fuser.config, fusion_mode=fusion_mode)
    responder = C2CResponder(c2c)
    options = ["Velmora", "the river"]
    for question, score in zip(questions, responder.score(questions, [options] * len(questions)), strict=True):
        for text, value in zip(options, score.log_probabilities, strict=True):
            ids = torch.tensor([c2c.receiver.tokenizer(text, add_special_tokens=False)["input_ids"]])
            loss = c2c(c2c.encode([question]), ids).loss.detach()
            assert value == pytest.approx(-float(loss) * ids.shape[1], abs=1e-4)


@pytest.mark.parametrize(("fusion_mode", "per_question"), [("prefill", 1), ("prompt", 1), ("decode", 2)])
def test_a_prompt_is_fused_once_for_all_options(fusion_mode: Any, per_question: int, questions: Any) -> None:
    """Except in mode `decode`, where the options are fused too."""
    c2c, batches = fused_pair(), []
    c2c.fuser.config = replace(c2c.fuser.config, fusion_mode=fusion_mode)
    c2c.fuser.register_forward_pre_hook(lambda fuser, inputs: batches.append(len(inputs[0][0].keys)))
    C2CResponder(c2c).score(questions, [["Velmora", "the river"]] * len(questions))
    assert set(batches) == {per_question * len(questions)}


def test_a_question_about_the_same_document_is_no_donor() -> None:
    def prompt(document: str, question: str) -> QuestionPrompt:
        messages = [{"role": "user", "content": question}]
        return QuestionPrompt(messages, question, [{"role": "user", "content": f"{document}\n\n{question}"}])

    texts = [("Note 1.", "Who came?"), ("Note 1.", "Who left?"), ("A longer note.", "When was it, and where?")]
    prompts = [prompt(*text) for text in texts]
    pool = DonorPool(prompts)
    assert [pool.donor(prompts[0], draw) for draw in range(3)] == [2, 2, 2]
    assert pool.donor(prompts[2]) in (0, 1)

"""Questions put to responders: what goes wrong counts as wrong, and sampled answers depend on nothing but the seed."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from c2c_lightning.evaluation.controls import GatesClosed
from c2c_lightning.evaluation.memory_peak import peak_memory, peak_memory_of_batch
from c2c_lightning.evaluation.plan import Participant
from c2c_lightning.evaluation.report.aggregate import summarise
from c2c_lightning.evaluation.report.build_report import build_report
from c2c_lightning.evaluation.report.publish import publish
from c2c_lightning.evaluation.runner import Runner
from c2c_lightning.evaluation.tasks import Task, load_questions, resolve
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.registry import BY_NAME, T2T, TC2C, ModelBundle
from c2c_lightning.responders.single_model import ReceiverOnly

GREEDY = {"max_new_tokens": 2, "do_sample": False}
TEXTS = ["What is it?", "Name a city, number 3.", "Why?", "river " * 600, "Which way?"]


@pytest.fixture
def exam(tmp_path: Path) -> Runner:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"question": t, "choices": ["x", "y"], "answer": 0}) for t in TEXTS))
    benchmark = resolve(Task("mine", str(path), wording="question", scoring="choice_text"))
    return Runner(benchmark, load_questions(benchmark), GREEDY)


class Choosy(ReceiverOnly):
    """Refuses one question."""

    def respond(self, conversations: Any, **kwargs: Any) -> Any:
        if any("number 3" in conversation[-1]["content"] for conversation in conversations):
            raise RuntimeError("not this one")
        return super().respond(conversations, **kwargs)


def test_an_error_and_a_prompt_too_long_count_as_wrong_and_take_no_other_question_along(
    exam: Runner, c2c: C2CModel, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = exam.ask(Participant("choosy", 0, Choosy(c2c.receiver)), exam.questions)
    assert [p.index for p in predictions] == list(range(5))
    errors = [p.error or "" for p in predictions]
    assert errors[1] == "RuntimeError: not this one"
    assert "longer than the context" in errors[3]
    assert [errors[n] for n in (0, 2, 4)] == [""] * 3
    assert (predictions[1].score, predictions[3].score) == (0.0, 0.0)
    assert "mine, row 1 counts as wrong for choosy: RuntimeError: not this one" in caplog.text
    assert "mine, row 3 counts as wrong for choosy: PromptError" in caplog.text
    line = summarise(predictions)
    assert (line["n"], line["errors"], line["errors_rows"]) == (5, 2, [1, 3])


@pytest.mark.parametrize("name", ["receiver", "sharer", "t2t", "t2t:answer", "routing", "c2c", "t-c2c"])
@pytest.mark.parametrize("mode", ["generate", "cloze"])
def test_a_prompt_too_long_is_wrong_for_every_responder(exam: Runner, c2c: C2CModel, name: str, mode: Any) -> None:
    short = {"message_max_new_tokens": 4}
    factory = {"t2t": T2T(**short), "t-c2c": TC2C(T2T(**short))}.get(name, BY_NAME[name])
    entrant = Participant(name, 0, factory.build(ModelBundle(c2c.receiver, c2c.sharers, c2c)))
    asked = replace(exam, benchmark=replace(exam.benchmark, mode=mode))
    predictions = asked.ask(entrant, exam.questions[2:])
    assert [p.error is None for p in predictions] == [True, False, True]
    assert "PromptError" in (predictions[1].error or "")


def test_replies_that_cannot_be_read_are_told_by_row(
    exam: Runner, c2c: C2CModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = exam.ask(Participant("receiver", 0, ReceiverOnly(c2c.receiver)), exam.questions)
    assert [p.extracted for p in predictions] == [None] * 5
    assert [p.score for p in predictions] == [0.0] * 5
    report = build_report(predictions, {"mine": {"mode": "generate", "scoring": "choice_text"}}, {})
    with caplog.at_level(logging.INFO):
        publish(report, tmp_path, with_plots=False)
    assert "mine, receiver: no answer could be read in 4 rows (0, 1, 2, 4)" in caplog.text
    assert "mine, receiver: an error was raised in 1 rows (3)" in caplog.text
    assert "| receiver | 0.0 | 0.0-43.4 | 5 |" in (tmp_path / "report.md").read_text()
    assert "| unread | errors |" in (tmp_path / "report.md").read_text()


def test_sampled_answers_depend_on_seed_and_batch_alone(exam: Runner, c2c: C2CModel) -> None:
    sampled = replace(exam, generate_kwargs={"max_new_tokens": 8, "do_sample": True, "temperature": 1.5})
    batches = [exam.questions[:2], exam.questions[2:3]]
    receiver, closed = (
        Participant("receiver", 0, ReceiverOnly(c2c.receiver)),
        Participant("closed", 0, GatesClosed(c2c)),
    )

    def outputs(given: Runner, who: Participant, order: list[int]) -> list[list[str]]:
        said = {n: [p.output for p in given.ask(who, batches[n])] for n in order}
        return [said[0], said[1]]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = outputs(sampled, receiver, [0, 1])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert outputs(sampled, receiver, [1, 0]) == first
    assert outputs(replace(sampled, seed=7), receiver, [0, 1]) != first
    # The control that must equal the receiver does so when sampling, too.
    assert outputs(sampled, closed, [0, 1]) == first


def test_peak_memory_is_that_of_the_batch_alone() -> None:
    with peak_memory_of_batch() as idle:
        pass
    with peak_memory_of_batch() as busy:
        block = torch.ones(2**25)  # 128 MiB
    del block
    with peak_memory_of_batch() as after:
        pass
    if idle.value is None or busy.value is None or after.value is None:
        pytest.skip("this system does not tell")
    assert busy.value - idle.value > 100 * 2**20
    assert busy.value - after.value > 100 * 2**20
    assert peak_memory() > 0

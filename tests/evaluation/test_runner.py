"""Running a benchmark: errors count as wrong, samples depend on the seed and the batch only."""

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
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.registry import BY_NAME, T2T, TC2C
from c2c_lightning.responders.responder_factory import ModelBundle
from c2c_lightning.responders.single_model import ReceiverOnly

GREEDY = {"max_new_tokens": 2, "do_sample": False}
TEXTS = ["What is it?", "Name a city, number 3.", "Why?", "river " * 600, "Which way?"]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"question": t, "choices": ["x", "y"], "answer": 0}) for t in TEXTS))
    benchmark = resolve(Task("mine", str(path), wording="question", scoring="choice_text"))
    return Runner(benchmark, load_questions(benchmark), GREEDY)


def test_sharers_of_equally_worded_questions_read_their_own_documents(tmp_path: Path, c2c: C2CModel) -> None:
    path = tmp_path / "rows.jsonl"
    asked = {"messages": [{"role": "user", "content": "Which city is it?"}], "choices": ["Arlen", "Velmora"]}
    rows = [{**asked, "answer": n, "sharer_context": f"It is {city}."} for n, city in enumerate(asked["choices"])]
    path.write_text("\n".join(map(json.dumps, rows)))
    benchmark = resolve(Task("mine", str(path), wording="question", scoring="choice_text"))
    questions = load_questions(benchmark)
    read: list[list[str]] = []

    class Recording(C2CResponder):
        def encode(self, conversations: Any) -> Any:
            prompt = super().encode(conversations)
            tokenizer: Any = self.model.sharers[0].tokenizer
            read.append([tokenizer.decode(ids) for ids in prompt.sharers[0].input_ids])
            return prompt

    predictions = Runner(benchmark, questions, GREEDY).run(Participant("c2c", 0, Recording(c2c)), questions)
    assert [p.error for p in predictions] == [None, None]
    assert ["It is Arlen." in read[0][0], "It is Velmora." in read[0][1]] == [True, True]
    message = T2T("Say: {question}").build(ModelBundle(c2c.receiver, c2c.sharers))
    requests = [message.request(question.prompt(benchmark.worded())) for question in questions]
    assert ["Arlen" in requests[0][-1]["content"], "Velmora" in requests[1][-1]["content"]] == [True, True]


class FailsOnOne(ReceiverOnly):
    """Raises an error for one question."""

    def respond(self, conversations: Any, **kwargs: Any) -> Any:
        if any("number 3" in conversation[-1]["content"] for conversation in conversations):
            raise RuntimeError("not this one")
        return super().respond(conversations, **kwargs)


def test_errors_count_as_wrong_without_failing_their_batch(
    runner: Runner, c2c: C2CModel, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = runner.run(Participant("fails", 0, FailsOnOne(c2c.receiver)), runner.questions)
    assert [p.index for p in predictions] == list(range(5))
    errors = [p.error or "" for p in predictions]
    assert errors[1] == "RuntimeError: not this one"
    assert "longer than the context" in errors[3]
    assert [errors[n] for n in (0, 2, 4)] == [""] * 3
    assert (predictions[1].score, predictions[3].score) == (0.0, 0.0)
    assert "mine, row 1 counts as wrong for fails: RuntimeError: not this one" in caplog.text
    assert "mine, row 3 counts as wrong for fails: PromptError" in caplog.text
    line = summarise(predictions)
    assert (line["n"], line["errors"], line["errors_rows"]) == (5, 2, [1, 3])


@pytest.mark.parametrize("name", ["receiver", "sharer", "t2t", "t2t:answer", "routing", "c2c", "t-c2c"])
@pytest.mark.parametrize("mode", ["generate", "cloze"])
def test_too_long_prompt_counts_as_wrong_for_every_responder(
    runner: Runner, c2c: C2CModel, name: str, mode: Any
) -> None:
    short = {"message_max_new_tokens": 4}
    factory = {"t2t": T2T(**short), "t-c2c": TC2C(T2T(**short))}.get(name, BY_NAME[name])
    participant = Participant(name, 0, factory.build(ModelBundle(c2c.receiver, c2c.sharers, c2c)))
    asked = replace(runner, benchmark=replace(runner.benchmark, mode=mode))
    predictions = asked.run(participant, runner.questions[2:])
    assert [p.error is None for p in predictions] == [True, False, True]
    assert "PromptError" in (predictions[1].error or "")


def test_unparsed_replies_are_logged_by_row(
    runner: Runner, c2c: C2CModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = runner.run(Participant("receiver", 0, ReceiverOnly(c2c.receiver)), runner.questions)
    assert [p.extracted for p in predictions] == [None] * 5
    assert [p.score for p in predictions] == [0.0] * 5
    report = build_report(predictions, {"mine": {"mode": "generate", "scoring": "choice_text"}}, {})
    with caplog.at_level(logging.INFO):
        publish(report, tmp_path, with_plots=False)
    assert "mine, receiver: no answer extracted in 4 rows (0, 1, 2, 4)" in caplog.text
    assert "mine, receiver: an error was raised in 1 rows (3)" in caplog.text
    assert "| receiver | 0.0 | 0.0-43.4 | 5 |" in (tmp_path / "report.md").read_text()
    assert "| unreadable | errors |" in (tmp_path / "report.md").read_text()


class Continues(ReceiverOnly):
    """Continues after the text of a choice, as base models do."""

    def respond(self, conversations: Any, **kwargs: Any) -> Any:
        answers = super().respond(conversations, **kwargs)
        return [replace(answer, text=" x.\nQuestion: What else?") for answer in answers]


def test_replies_that_continue_after_a_choice_are_reported(
    runner: Runner, c2c: C2CModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = Participant("receiver", 0, Continues(c2c.receiver))
    questions = runner.questions[:2]
    predictions = runner.run(base, questions)
    assert [(p.score, p.begins_with_choice) for p in predictions] == [(0.0, True)] * 2
    report = build_report(predictions, {"mine": {"mode": "generate", "scoring": "choice_text"}}, {})
    publish(report, tmp_path, with_plots=False)
    assert "mine, receiver: 2 of 2 replies begin with the text of a choice and continue" in caplog.text
    assert "Use `scoring: first_line`" in (tmp_path / "report.md").read_text()
    first_line = replace(runner, benchmark=replace(runner.benchmark, scoring="first_line"))
    assert [(p.score, p.begins_with_choice) for p in first_line.run(base, questions)] == [(1.0, False)] * 2


def test_sampled_answers_depend_on_seed_and_batch_alone(runner: Runner, c2c: C2CModel) -> None:
    sampled = replace(runner, generate_kwargs={"max_new_tokens": 8, "do_sample": True, "temperature": 1.5})
    batches = [runner.questions[:2], runner.questions[2:3]]
    receiver, closed = (
        Participant("receiver", 0, ReceiverOnly(c2c.receiver)),
        Participant("closed", 0, GatesClosed(c2c)),
    )

    def outputs(given: Runner, who: Participant, order: list[int]) -> list[list[str]]:
        texts = {n: [p.output for p in given.run(who, batches[n])] for n in order}
        return [texts[0], texts[1]]

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
        pytest.skip("the peak memory of a process cannot be reset on this system")
    assert busy.value - idle.value > 100 * 2**20
    assert busy.value - after.value > 100 * 2**20
    assert peak_memory() > 0

"""The three turns of text-to-text, and routing by confidence."""

from typing import Any

import pytest

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.next_turn import NextTurn
from c2c_lightning.responders.prompt_texts import TEXT_3
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.routing import Routing
from c2c_lightning.responders.single_model import SingleModel
from c2c_lightning.responders.text_to_text import AnswerAsMessage, TextToText
from tests.tiny import tiny_pair

GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture
def models(receiver: FrozenLM, sharer: FrozenLM) -> tuple[SingleModel, SingleModel]:
    return SingleModel(receiver, "receiver"), SingleModel(sharer, "sharer")


def test_receiver_prompt_is_request_message_and_question(models: Any, questions: Any) -> None:
    receiver, sharer = models
    t2t = TextToText(receiver, sharer, message_max_new_tokens=6)
    questions = [QuestionPrompt(conversation, "Why?") for conversation in questions]
    request = {"role": "user", "content": TEXT_3.replace("{question}", "Why?")}
    for conversation, answer in zip(questions, t2t.respond(questions, **GREEDY), strict=True):
        message = sharer.respond([[request]], max_new_tokens=6, do_sample=False)[0]
        turns = [request, {"role": "assistant", "content": message.text.strip()}, conversation[-1]]
        expected = receiver.respond([turns], **GREEDY)[0]
        assert (answer.text, answer.message) == (expected.text, message.text)
        assert answer.new_tokens <= 4
        assert answer.seconds > (answer.phases or {})["message"] > 0


def test_by_default_the_last_message_is_the_question(models: Any, questions: Any) -> None:
    t2t = TextToText(*models, message_prompt="In one sentence: {question}")
    assert t2t.request(questions[0]) == [{"role": "user", "content": "In one sentence: What is the capital of Arlen?"}]


def test_only_the_sharer_reads_private_context(models: Any) -> None:
    context = {"role": "system", "content": "The capital of Arlen is Velmora."}
    question = {"role": "user", "content": "What is it?"}
    t2t, prompt = TextToText(*models, "Say: {question}"), QuestionPrompt([question], sharer=[context, question])
    assert t2t.request(prompt) == [context, {"role": "user", "content": "Say: What is it?"}]
    assert context not in t2t.turns(prompt, "hm")


def test_the_sharers_answer_as_message(models: Any, questions: Any) -> None:
    t2t = AnswerAsMessage(*models, message_max_new_tokens=4)
    message = models[1].respond(questions[:1], **GREEDY)[0].text
    turns = [questions[0][0], {"role": "assistant", "content": message.strip()}, questions[0][0]]
    assert t2t.respond(questions[:1], **GREEDY)[0].text == models[0].respond([turns], **GREEDY)[0].text


def test_the_bare_question_as_message_prompt_gives_the_sharers_answer(models: Any) -> None:
    context = {"role": "system", "content": "The capital of Arlen is Velmora."}
    question = {"role": "user", "content": "What is it?"}
    prompt = QuestionPrompt([question], sharer=[context, question])
    bare, answer = TextToText(*models, "{question}"), AnswerAsMessage(*models)
    assert bare.request(prompt) == answer.request(prompt)
    assert bare.turns(prompt, "Velmora") == answer.turns(prompt, "Velmora")


class Says(SingleModel):
    """A model that gives the same text for every conversation, and keeps the arguments of its last call."""

    text = ""

    def respond(self, conversations: Any, **kwargs: Any) -> list[Answer]:
        self.kwargs = kwargs
        return [Answer(self.text) for _ in conversations]


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("question_answer", "\n\nQuestion:"),
        ("dialogue", "\nUser:"),
        ("plain", ""),
        ("text", ""),
        ("{{ messages[-1]['content'] }}!", ""),
    ],
)
def test_a_message_ends_where_a_base_model_begins_the_next_turn(models: Any, template: str, end: str) -> None:
    model, tokenizer = tiny_pair("llama")
    lm = FrozenLM(model, tokenizer, LMSpec("tiny", prompt_template=template))
    sharer = Says(lm)
    sharer.text = f" Velmora{end} Who?" if end else " Velmora\nWho?"
    question = [{"role": "user", "content": "What is it?"}]
    message = TextToText(models[0], sharer).messages([question], max_new_tokens=4)[0]
    assert message.text == (" Velmora" if end else " Velmora\nWho?")
    assert [criterion.text for criterion in sharer.kwargs.get("stopping_criteria", [])] == ([end] if end else [])


def test_a_message_is_generated_up_to_the_next_turn(models: Any, questions: Any) -> None:
    whole = models[1].respond(questions, max_new_tokens=12, do_sample=False)
    ids = [models[1].lm.tokenizer(answer.text, add_special_tokens=False).input_ids for answer in whole]
    text = models[1].lm.tokenizer.decode(ids[0][4:6])
    stop = NextTurn(models[1].lm.tokenizer, text)
    cut = models[1].respond(questions, max_new_tokens=12, do_sample=False, stopping_criteria=[stop])
    for answer, longer in zip(cut, whole, strict=True):
        assert longer.text.startswith(answer.text)
        assert (text in answer.text) == (text in longer.text)
        assert answer.new_tokens <= longer.new_tokens
    assert cut[0].new_tokens < whole[0].new_tokens


def test_messages_of_a_chat_model_end_by_its_end_token_alone(models: Any) -> None:
    assert [model.encoder.receiver_tokenizer.next_turn for model in models] == ["", ""]


def test_scores_come_after_the_three_turns(models: Any, questions: Any) -> None:
    t2t = TextToText(*models, message_max_new_tokens=4)
    score = t2t.score(questions[:1], [["Velmora", "a city"]])[0]
    turns = t2t.turns(questions[0], (score.message or "").strip())
    assert score.log_probabilities == pytest.approx(
        models[0].score([turns], [["Velmora", "a city"]])[0].log_probabilities
    )


def test_an_unknown_placeholder_is_refused(models: Any) -> None:
    with pytest.raises(BenchmarkError, match=r"\{stem\}"):
        TextToText(*models, message_prompt="{stem}")


def test_routing_chooses_the_answer_with_the_highest_confidence(
    receiver: FrozenLM, sharer: FrozenLM, questions: Any
) -> None:
    models = [SingleModel(lm, name, with_confidence=True) for lm, name in ((receiver, "receiver"), (sharer, "sharer"))]
    by_model = [model.respond(questions, **GREEDY) for model in models]
    routed = Routing(models).respond(questions, **GREEDY)
    for answer, *candidates in zip(routed, *by_model, strict=True):
        best = max(candidates, key=lambda candidate: candidate.log_probability or 0.0)
        assert answer.text == best.text
        assert answer.log_probability == pytest.approx(best.log_probability, abs=1e-5)
    options = [["Velmora", "a"]] * 3
    scores = [model.score(questions, options) for model in models]
    for score, *candidates in zip(Routing(models).score(questions, options), *scores, strict=True):
        sums = [max(p / n for p, n in zip(c.log_probabilities, c.num_tokens, strict=True)) for c in candidates]
        assert score.log_probabilities == pytest.approx(candidates[sums.index(max(sums))].log_probabilities)


def test_routing_needs_confidence(receiver: FrozenLM) -> None:
    with pytest.raises(ValueError, match="with_confidence"):
        Routing([SingleModel(receiver, "receiver")])

"""T-C2C: the receiver reads the message as text, and the sharer's cache over the same turns is fused."""

from typing import Any

import pytest

from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import SingleModel
from c2c_lightning.responders.text_to_text import TextToText
from tests.evaluation.conftest import fused_pair

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module")
def c2c() -> C2CModel:
    return fused_pair()


def text_and_cache(model: C2CModel) -> TextToText:
    sharer = SingleModel(model.sharers[0], "sharer")
    return TextToText(C2CResponder(model), sharer, "Say: {question}", message_max_new_tokens=5, name="t-c2c")


def test_the_answer_is_that_of_c2c_after_the_three_turns(c2c: C2CModel, questions: Any) -> None:
    both = text_and_cache(c2c)
    answers = both.respond(questions, **GREEDY)
    turns = [both.turns(q, a.message or "") for q, a in zip(questions, answers, strict=True)]
    assert all(len(conversation) == 3 for conversation in turns)
    expected = C2CResponder(c2c).respond(turns, **GREEDY)
    assert [a.text for a in answers] == [e.text for e in expected]
    # Neither the text nor the cache alone gives these answers.
    text_only = TextToText(SingleModel(c2c.receiver), both.sharer, both.message_prompt, both.message_max_new_tokens)
    assert [a.text for a in answers] != [a.text for a in text_only.respond(questions, **GREEDY)]
    assert [a.text for a in answers] != [a.text for a in C2CResponder(c2c).respond(questions, **GREEDY)]
    for answer, alone in zip(answers, expected, strict=True):
        assert {"message", "fuse", "prefill_sharer", "decode"} <= set(answer.phases or {})
        assert 0 < answer.message_tokens <= 5
        assert answer.sharer_tokens > alone.sharer_tokens > 0


def test_scores_are_those_of_c2c_after_the_three_turns(c2c: C2CModel, questions: Any) -> None:
    both = text_and_cache(c2c)
    options = [["Velmora", "the river"]] * len(questions)
    scores = both.score(questions, options)
    turns = [both.turns(q, s.message or "") for q, s in zip(questions, scores, strict=True)]
    for score, expected in zip(scores, C2CResponder(c2c).score(turns, options), strict=True):
        assert score.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-5)


def test_private_context_reaches_the_receiver_through_the_cache_alone(c2c: C2CModel, questions: Any) -> None:
    context = {"role": "user", "content": "The capital of Arlen is Velmora."}
    reply = {"role": "assistant", "content": "Yes."}

    prompt = QuestionPrompt(questions[0], sharer=[context, reply, questions[0][-1]])
    both = text_and_cache(c2c)
    message = both.messages([prompt], **GREEDY)[0].text
    request = {"role": "user", "content": f"Say: {prompt.question}"}
    answered = {"role": "assistant", "content": message.strip()}
    mine = [request, answered, questions[0][0]]
    theirs = [context, reply, request, answered, questions[0][0]]
    ids = c2c.generate(c2c.encode([mine], [theirs]), **GREEDY)
    expected = c2c.receiver.tokenizer.decode(ids[0, c2c.encode([mine]).num_receiver_tokens :], skip_special_tokens=True)
    assert both.respond([prompt], **GREEDY)[0].text == expected

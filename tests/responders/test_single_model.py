"""One model alone: against transformers' plain generate, batched against alone, likelihoods against full passes."""

from typing import Any

import pytest
import torch

from c2c_lightning.errors import PromptError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.responders.option_scoring import OptionEncoder
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.single_model import ReceiverOnly, SharerOnly, SingleModel, WithoutDocument

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}


def prompt_ids(lm: FrozenLM, conversation: list[dict[str, str]]) -> torch.Tensor:
    text = lm.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return torch.tensor([lm.tokenizer(text, add_special_tokens=False)["input_ids"]])


@pytest.mark.parametrize("name", ["receiver", "sharer"])
def test_answers_are_those_of_plain_generate(name: str, request: pytest.FixtureRequest, questions: Any) -> None:
    lm: FrozenLM = request.getfixturevalue(name)
    answers = SingleModel(lm, name).respond(questions, **GREEDY)
    for conversation, answer in zip(questions, answers, strict=True):
        ids = prompt_ids(lm, conversation)
        expected = lm.model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)[0, ids.shape[1] :]
        assert answer.text == lm.tokenizer.decode(expected, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.new_tokens) == (ids.shape[1], len(expected))
        assert answer.seconds > 0
        assert set(answer.phases or {}) == {"prefill_receiver", "decode"}


def test_an_answer_alone_is_the_answer_in_a_batch(receiver: FrozenLM, questions: Any) -> None:
    model = ReceiverOnly(receiver)
    together = model.respond(questions, **GREEDY)
    alone = [model.respond([conversation], **GREEDY)[0] for conversation in questions]
    assert [a.text for a in together] == [a.text for a in alone]


def test_confidence_is_the_mean_log_probability_of_the_answer(receiver: FrozenLM, questions: Any) -> None:
    answers = SingleModel(receiver, "receiver", with_confidence=True).respond(questions, **GREEDY)
    for conversation, answer in zip(questions, answers, strict=True):
        ids = prompt_ids(receiver, conversation)
        full = receiver.model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)
        logits = receiver.model(full[:, :-1]).logits[0, ids.shape[1] - 1 :].log_softmax(-1)
        expected = logits.gather(1, full[0, ids.shape[1] :, None]).mean()
        assert answer.log_probability == pytest.approx(float(expected), abs=1e-4)


def test_the_length_counts_up_to_the_first_end_token(receiver: FrozenLM, questions: Any) -> None:
    first = [answer.text for answer in SingleModel(receiver, "r").respond(questions[:1], **GREEDY)]
    ids = prompt_ids(receiver, questions[0])
    new = receiver.model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)[0, ids.shape[1] :]
    answer = SingleModel(receiver, "r").respond(questions[:1], eos_token_id=int(new[2]), **GREEDY)[0]
    assert answer.new_tokens == new.tolist().index(int(new[2])) + 1
    assert first[0].startswith(answer.text)


@pytest.mark.parametrize("name", ["receiver", "sharer"])
def test_option_scores_are_those_of_one_full_pass(name: str, request: pytest.FixtureRequest, questions: Any) -> None:
    lm: FrozenLM = request.getfixturevalue(name)
    options = [["Velmora", "the river"], ["a"], ["12 + 34", "46", "an arrow", "x"]]
    scores = SingleModel(lm, name).score(questions, options)
    for conversation, texts, score in zip(questions, options, scores, strict=True):
        prompt = prompt_ids(lm, conversation)
        for n, text in enumerate(texts):
            option = torch.tensor([lm.tokenizer(text, add_special_tokens=False)["input_ids"]])
            logits = lm.model(torch.cat([prompt, option], 1)).logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1)
            assert score.log_probabilities[n] == pytest.approx(float(logits.gather(1, option.T).sum()), abs=1e-4)
            assert score.num_tokens[n] == option.shape[1]
            assert score.is_greedy[n] == torch.equal(logits.argmax(-1), option[0])
        assert score.prompt_tokens == prompt.shape[1]


def test_options_exclude_the_end_of_the_turn(receiver: FrozenLM) -> None:
    encoder = OptionEncoder(SingleModel(receiver, "r").encoder)
    ids = encoder.encode([{"role": "user", "content": "Why?"}], ["the river", "0"])
    assert [receiver.tokenizer.decode(option) for option in ids] == ["the river", "0"]


def test_sharer_answers_its_own_conversation(sharer: FrozenLM, questions: Any) -> None:
    private = [{"role": "user", "content": "The capital of Arlen is Velmora. What is it?"}]
    prompt = QuestionPrompt(questions[0], sharer=private)
    expected = SingleModel(sharer, "s").respond([private], **GREEDY)[0].text
    assert SharerOnly(sharer).respond([prompt], **GREEDY)[0].text == expected


def test_a_prompt_longer_than_the_context_is_refused(receiver: FrozenLM) -> None:
    conversation = [{"role": "user", "content": "river " * 900}]
    with pytest.raises(PromptError, match="longer than the context"):
        ReceiverOnly(receiver).respond([conversation], **GREEDY)


def test_without_the_document_a_model_reads_worked_examples_and_question(receiver: FrozenLM) -> None:
    question = [{"role": "user", "content": "Who signed it?"}]
    example = [{"role": "user", "content": "Note 1.\n\nWho left?"}, {"role": "assistant", "content": "Ada."}]

    def prompt(document: str) -> QuestionPrompt:
        private = [*example, {"role": "user", "content": f"{document}\n\nWho signed it?"}]
        return QuestionPrompt(question, "Who signed it?", private)

    model = WithoutDocument(receiver, "receiver:no_document")
    guesses = model.respond([prompt("Signed: the director."), prompt("Signed: the clerk, in May.")], **GREEDY)
    expected = SingleModel(receiver).respond([[*example, *question]], **GREEDY)[0].text
    assert [guess.text for guess in guesses] == [expected] * 2
    assert prompt("Signed: the director.").document == "Signed: the director.\n\n"
    assert QuestionPrompt.of(question).document == ""

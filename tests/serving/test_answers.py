"""Settings of single answers: stop strings, seeds, log-probabilities, several answers, bare texts."""

import math

import httpx
import pytest
import torch
from openai import OpenAI

from c2c_lightning.serving.http_server import HTTPServer
from c2c_lightning.serving.prepared_prompt import C2CChoices
from tests.serving.served import ask, until

QUESTION = ask("Why does the river bend?")


def text_of(client: OpenAI, **fields: object) -> str:
    answer = client.chat.completions.create(**{"model": "c2c", "messages": QUESTION, "max_tokens": 24, **fields})
    return answer.choices[0].message.content


def test_a_stop_string_ends_the_answer_in_front_of_it(client: OpenAI) -> None:
    fields = {"model": "c2c", "messages": QUESTION, "max_tokens": 24, "temperature": 1.5, "seed": 3}
    whole = text_of(client, **fields)
    stop = whole[len(whole) // 2 :][:3]
    answer = client.chat.completions.create(**fields, stop=[stop, "@@@"])
    assert answer.choices[0].message.content == whole[: whole.find(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 24
    with client.chat.completions.create(**fields, stop=stop, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole[: whole.find(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_greedy_is_the_default_and_a_seed_repeats_a_sample(client: OpenAI) -> None:
    assert text_of(client) == text_of(client, temperature=0)
    hot = [text_of(client, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    assert text_of(client, temperature=1.5) != text_of(client, temperature=1.5)
    assert text_of(client, temperature=1.5, top_p=1e-6) == text_of(client)


def test_several_answers_are_numbered_and_the_first_is_that_alone(client: OpenAI) -> None:
    fields = {"model": "c2c", "messages": QUESTION, "max_tokens": 8, "temperature": 1.5, "seed": 4}
    answer = client.chat.completions.create(**fields, n=3)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    alone = client.chat.completions.create(**fields)
    assert texts[0] == alone.choices[0].message.content
    assert answer.usage.prompt_tokens == alone.usage.prompt_tokens  # one prompt
    with client.chat.completions.create(**fields, n=3, stream=True) as stream:
        streamed = {0: "", 1: "", 2: ""}
        for chunk in stream:
            streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == texts


def test_log_probabilities_are_those_of_a_pass_over_the_answer(client: OpenAI, server: HTTPServer) -> None:
    answer = client.chat.completions.create(
        model="c2c", messages=QUESTION, max_tokens=6, logprobs=True, top_logprobs=3, temperature=0.5, seed=1
    )
    entries = answer.choices[0].logprobs.content
    model = server.answer_server.catalogue.get("c2c").model
    tokenizer = model.receiver.tokenizer
    ids = tokenizer("".join(e.token for e in entries), add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert len(entries) == answer.usage.completion_tokens
    if ids.shape[1] == len(entries):  # the text splits into the same tokens
        logits = model(model.encode([QUESTION]), ids).logits[0, :-1].log_softmax(-1)
        expected = logits.gather(1, ids[0][:, None])[:, 0]
        torch.testing.assert_close(torch.tensor([e.logprob for e in entries]), expected, atol=1e-4, rtol=1e-4)
    for entry in entries:
        assert [t.logprob for t in entry.top_logprobs] == sorted((t.logprob for t in entry.top_logprobs), reverse=True)
        assert entry.logprob <= entry.top_logprobs[0].logprob + 1e-6
        assert len(entry.top_logprobs) == 3
    with client.chat.completions.create(
        model="c2c", messages=QUESTION, max_tokens=6, logprobs=True, temperature=0.5, seed=1, stream=True
    ) as stream:
        parts = [chunk.choices[0].logprobs for chunk in stream]
    streamed = [e.logprob for part in parts if part is not None for e in part.content]
    assert streamed == pytest.approx([e.logprob for e in entries], abs=1e-5)


@pytest.mark.parametrize("model", ["receiver", "sharer", "c2c"])
def test_a_bare_text_is_continued_without_a_template(client: OpenAI, server: HTTPServer, model: str) -> None:
    answer = client.completions.create(model=model, prompt=["The river", "A city"], max_tokens=5, logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len(choice.logprobs.tokens) == 5 or choice.finish_reason == "stop" for choice in answer.choices)
    assert all(math.isfinite(x) for x in answer.choices[0].logprobs.token_logprobs)
    served = server.answer_server.catalogue.get(model)
    prompt = served.prepare_text("The river", C2CChoices())
    text = served.receiver.tokenizer.decode(prompt.encoded.receiver_ids, skip_special_tokens=True)
    assert text == "The river"
    with client.completions.create(model=model, prompt="The river", max_tokens=5, stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_metrics_count_requests_answers_and_tokens(client: OpenAI, server: HTTPServer) -> None:
    registry = server.answer_server.metrics.registry

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    labels = {"model": "c2c", "kind": "completion"}
    before = value("c2c_tokens_total", **labels)
    used = client.chat.completions.create(model="c2c", messages=QUESTION, max_tokens=5).usage.completion_tokens
    assert value("c2c_tokens_total", **labels) == before + used
    # A request is counted once its response has been sent, an answer runs until its caches are kept.
    until(lambda: value("c2c_requests_total", path="/v1/chat/completions", status="200") > 0)
    until(lambda: value("c2c_answers_running") == 0)
    text = httpx.get(f"{server.url}/metrics").text
    assert "c2c_batch_size_bucket" in text

"""The real `openai` client against a server on the loopback."""

import openai
import pytest
from openai import OpenAI

from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.question_prompt import QuestionPrompt
from c2c_lightning.responders.registry import BY_NAME
from c2c_lightning.responders.responder_factory import ModelBundle
from c2c_lightning.serving.http_server import HTTPServer
from tests.serving.served import MESSAGE, ask

QUESTION = "What is the capital of Arlen?"
GREEDY = {"max_new_tokens": 12, "do_sample": False}
MODELS = ["receiver", "sharer", "t2t", "c2c"]


def expected(server: HTTPServer, name: str, prompt: QuestionPrompt | list[dict[str, str]]) -> str:
    """The answer of the evaluation's responder, alone."""
    model = server.answer_server.catalogue.get("c2c").model
    bundle = ModelBundle(model.receiver, model.sharers, model)
    factory = MESSAGE if name == "t2t" else BY_NAME[name]
    return factory.build(bundle).respond([prompt], **GREEDY)[0].text


def test_models_are_listed_by_name(client: OpenAI) -> None:
    listed = {model.id: model.c2c["kind"] for model in client.models.list()}
    assert listed == {"receiver": "receiver", "sharer": "sharer", "t2t": "t2t", "c2c": "fused"}
    assert client.models.retrieve("c2c").c2c["context"] == 512
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("other")


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_is_that_of_the_responder(client: OpenAI, server: HTTPServer, name: str) -> None:
    answer = client.chat.completions.create(model=name, messages=ask(QUESTION), max_tokens=12)
    assert answer.choices[0].message.content == expected(server, name, ask(QUESTION))
    assert answer.choices[0].finish_reason == ("length" if answer.usage.completion_tokens == 12 else "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_joins_to_the_whole_answer_and_ends_with_usage(client: OpenAI, name: str) -> None:
    whole = client.chat.completions.create(model=name, messages=ask(QUESTION), max_tokens=12)
    options = {"include_usage": True}
    with client.chat.completions.create(
        model=name, messages=ask(QUESTION), max_tokens=12, stream=True, stream_options=options
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_private_context_is_read_by_the_sharer_alone(client: OpenAI, server: HTTPServer) -> None:
    private = "The capital of Arlen is Velmora."
    prompt = QuestionPrompt(ask(QUESTION), sharer=ask(f"{private}\n\n{QUESTION}"))
    body = {"c2c": {"sharer_context": private}}
    for name in ("receiver", "sharer", "c2c"):
        answer = client.chat.completions.create(model=name, messages=ask(QUESTION), max_tokens=12, extra_body=body)
        assert answer.choices[0].message.content == expected(server, name, prompt)


def test_closed_gates_and_no_sharers_give_the_passes_without_fusion(client: OpenAI, server: HTTPServer) -> None:
    texts = [
        client.chat.completions.create(
            model="c2c", messages=ask(QUESTION), max_tokens=12, extra_body={"c2c": choice}
        ).choices[0].message.content
        for choice in ({}, {"gates": "closed"}, {"active_sharers": []}, {"gates": "open"})
    ]  # fmt: skip
    assert texts[1] == texts[2] != texts[0] == texts[3]


def test_the_control_reads_the_donor_and_names_it(client: OpenAI, server: HTTPServer) -> None:
    donor = ask("Why does the river bend in the velvet morning?")
    body = {"c2c": {"control": "mismatched", "donor_messages": donor, "detail": True}}
    answer = client.chat.completions.create(model="c2c", messages=ask(QUESTION), max_tokens=12, extra_body=body)
    model = server.answer_server.catalogue.get("c2c").model

    class Donor(C2CResponder):
        def encode(self, conversations):  # noqa: ANN001, ANN202
            from c2c_lightning.data.mismatch import swap_sharers

            return swap_sharers(super().encode(conversations), super().encode([donor]))

    assert answer.choices[0].message.content == Donor(model).respond([ask(QUESTION)], **GREEDY)[0].text
    assert answer.choices[0].c2c["donor"] == donor[0]["content"]


def test_detail_reports_gates_and_fused_tokens(client: OpenAI, server: HTTPServer) -> None:
    body = {"c2c": {"detail": True}}
    answer = client.chat.completions.create(model="c2c", messages=ask(QUESTION), max_tokens=4, extra_body=body)
    report = answer.choices[0].c2c
    assert report["gates"] == [{"keys": [True] * 4, "values": [True] * 4}]
    assert "".join(token["text"] for token in report["tokens"]) == QUESTION
    assert all(token["change"] > 0 for token in report["tokens"])
    assert len(report["tokens"]) == report["fused_tokens"]
    assert report["queue_seconds"] <= report["first_token_seconds"] <= report["seconds"]
    # Float32 keys and values of two layers with 4 heads of 6, for each sharer token up to the last fused one.
    assert report["fused_bytes"] % (2 * 2 * 4 * 6 * 4) == 0
    assert 0 < report["fused_bytes"] // (2 * 2 * 4 * 6 * 4) <= report["sharer_tokens"]
    assert answer.usage.prompt_tokens_details.sharer_tokens == report["sharer_tokens"]


def test_the_message_of_text_to_text_is_streamed(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="t2t", messages=ask(QUESTION), max_tokens=4, stream=True, extra_body={"c2c": {"detail": True}}
    ) as stream:
        reports = [choice.c2c for chunk in stream for choice in chunk.choices if hasattr(choice, "c2c")]
    assert "".join(report["message_delta"] for report in reports[:-1]) == reports[-1]["message"] != ""
    assert reports[-1]["message_tokens"] == 6

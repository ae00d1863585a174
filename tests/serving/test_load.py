"""Many clients at once, some of whom leave: every answer is the one alone, nothing is left behind."""

import gc
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI

from c2c_lightning.responders.registry import BY_NAME
from c2c_lightning.responders.responder_factory import ModelBundle
from c2c_lightning.serving.answer_row import AnswerRow
from tests.serving.served import MESSAGE, ask, catalogue, fused_model, running

QUESTIONS = ["Hi", "What is the capital of Arlen?", "Name a city. é 漢" * 3]
LENGTHS = [3, 16]


def expected_answers(names: list[str]) -> tuple[dict[tuple[str, str, int], str], object]:
    """The answers of the evaluation's responders, each alone."""
    model = fused_model()
    bundle = ModelBundle(model.receiver, model.sharers, model)
    answers = {}
    for name in names:
        responder = (MESSAGE if name == "t2t" else BY_NAME[name]).build(bundle)
        for question in QUESTIONS:
            for length in LENGTHS:
                kwargs = {"max_new_tokens": length, "do_sample": False}
                answers[name, question, length] = responder.respond([ask(question)], **kwargs)[0].text
    return answers, model


def num_rows() -> int:
    """Answers in memory, of whatever test."""
    gc.collect()
    return sum(type(thing) is AnswerRow for thing in gc.get_objects())


@pytest.mark.parametrize("num_requests", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_answers_under_load_with_cancellations_are_those_alone(num_requests: int) -> None:
    expected, model = expected_answers(["receiver", "sharer", "t2t", "c2c"])
    models, threads, rows = catalogue(model), threading.active_count(), num_rows()
    with running(models) as server:
        num_whole = 0

        def client_of(seed: int) -> int:
            draw, whole = random.Random(seed), 0
            with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
                for _ in range(num_requests):
                    whole += request(client, draw)
            return whole

        def request(client: OpenAI, draw: random.Random) -> int:
            key = draw.choice(list(expected))
            fields = {"model": key[0], "messages": ask(key[1]), "max_tokens": key[2]}
            if draw.random() < 0.4:
                answer = client.chat.completions.create(**fields)
                assert answer.choices[0].message.content == expected[key], key
                return 1
            leaves_after, text = draw.choice([0, 1, 3, 1000]), ""
            with client.chat.completions.create(**fields, stream=True) as stream:
                for number, chunk in enumerate(stream):
                    text += chunk.choices[0].delta.content or ""
                    if number >= leaves_after:
                        break
            assert expected[key].startswith(text), key
            if leaves_after == 1000:
                assert text == expected[key], key
            return leaves_after == 1000

        with ThreadPoolExecutor(8) as pool:
            num_whole = sum(pool.map(client_of, range(8)))
        engine, end = server.answer_server.engine, time.monotonic() + 20
        while (engine.num_running or len(engine.waiting)) and time.monotonic() < end:
            time.sleep(0.01)
        assert (engine.num_running, len(engine.waiting)) == (0, 0)
        assert models.prefixes.num_bytes <= models.prefixes.max_bytes
    assert num_whole > 8 * num_requests // 4
    assert threading.active_count() <= threads
    assert num_rows() <= rows

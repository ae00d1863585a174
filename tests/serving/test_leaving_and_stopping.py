"""Clients that leave, full queues, time limits, several streams at once, and the end of the server."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.http_server import HTTPServer
from c2c_lightning.serving.server_settings import ServerSettings
from c2c_lightning.serving.waiting_rows import QueueLimits
from tests.serving.served import ask, catalogue, endless_model, running, until

LONG = 300


@contextmanager
def endless(**settings: Any) -> Iterator[tuple[HTTPServer, OpenAI, list[AnswerRow]]]:
    """A server whose answers have `LONG` tokens, its client, and the rows of all requests."""
    rows: list[AnswerRow] = []
    with running(catalogue(endless_model()), ServerSettings(**settings)) as server:
        engine, submit = server.answer_server.engine, server.answer_server.engine.submit
        engine.submit = lambda served, new: (rows.extend(new), submit(served, new))[1]
        with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            yield server, client, rows


def stream(client: OpenAI, model: str = "c2c", max_tokens: int = LONG) -> Any:
    return client.chat.completions.create(model=model, messages=ask("Hi"), max_tokens=max_tokens, stream=True)


@pytest.mark.parametrize("model", ["receiver", "c2c", "t2t"])
def test_an_answer_ends_when_its_client_leaves(model: str) -> None:
    with endless() as (server, client, rows):
        with stream(client, model) as chunks:
            next(iter(chunks))
            until(lambda: server.answer_server.engine.num_running == 1)
        until(lambda: server.answer_server.engine.num_running == 0)
        assert rows[0].control.ended_by == "client"
        assert len(rows[0].ids) < LONG


def test_an_answer_that_is_not_streamed_ends_when_its_client_leaves() -> None:
    with endless() as (server, _, rows):
        body = {"model": "c2c", "messages": ask("Hi"), "max_tokens": LONG, "n": 4}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.2)
        until(lambda: server.answer_server.engine.num_running == 0)
        assert all(row.control.ended_by == "client" and len(row.ids) < LONG for row in rows)


def test_a_client_that_leaves_the_queue_frees_its_place_at_once() -> None:
    limits = {"num_threads": 1, "queue": QueueLimits(max_waiting=1)}
    with endless(**limits) as (server, client, rows), stream(client) as first:
        engine = server.answer_server.engine
        next(iter(first))
        until(lambda: engine.num_running == 1)
        with stream(client):
            until(lambda: len(engine.waiting) == 1)
            with pytest.raises(openai.RateLimitError, match="at most 1") as refused:
                stream(client)
            assert refused.value.response.headers["retry-after"] == "1"
        until(lambda: len(engine.waiting) == 0)
        assert not rows[0].is_done


def test_several_models_stream_side_by_side() -> None:
    names = ["receiver", "t2t", "c2c"]
    with endless() as (_, client, _):
        times: dict[str, list[float]] = {name: [] for name in names}

        def read(name: str) -> None:
            with stream(client, name, max_tokens=100) as chunks:
                times[name] += [time.monotonic() for chunk in chunks if chunk.choices[0].delta.content]

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(read, names))
    # All have begun long before one has ended, and none is silent for a quarter of its time.
    assert max(t[0] for t in times.values()) < min(t[-1] for t in times.values())
    for moments in times.values():
        gaps = [b - a for a, b in pairwise(moments)]
        assert max(gaps) < (moments[-1] - moments[0]) / 4


def test_a_short_answer_does_not_wait_for_a_long_one() -> None:
    with endless() as (_, client, rows), stream(client, "receiver") as long:
        next(iter(long))
        client.chat.completions.create(model="receiver", messages=ask("Hi"), max_tokens=2)
        assert rows[1].is_done
        assert not rows[0].is_done


def test_an_answer_that_takes_too_long_is_ended_and_told() -> None:
    with endless(time_limit=0.2) as (_, client, _):
        answer = client.chat.completions.create(model="c2c", messages=ask("Hi"), max_tokens=LONG)
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].c2c["ended_by"] == "time_limit"
        assert 0 < answer.usage.completion_tokens < LONG


def test_stopping_ends_running_answers_and_refuses_waiting_ones() -> None:
    with endless(num_threads=1, shutdown_seconds=0.1) as (server, client, _), ThreadPoolExecutor(2) as pool:
        running_one = pool.submit(lambda: list(stream(client)))
        until(lambda: server.answer_server.engine.num_running == 1)
        waiting_one = pool.submit(lambda: list(stream(client)))
        until(lambda: len(server.answer_server.engine.waiting) == 1)
        server.stop()
        last = running_one.result(10)[-1].choices[0]
        assert (last.finish_reason, last.c2c["ended_by"]) == ("length", "shutdown")
        with pytest.raises(openai.APIError, match="shutting down"):
            waiting_one.result(10)


def test_a_batch_that_fails_is_answered_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    with endless(queue=QueueLimits(batch_window=0.3)) as (server, client, rows):
        served = server.answer_server.catalogue.get("receiver")
        answer = served.answer

        def fails_together(batch: Any) -> None:
            if len(batch) > 1 or batch[0].settings.max_tokens == 3:
                raise RuntimeError("out of memory at /secret/place")
            answer(batch)

        monkeypatch.setattr(served, "answer", fails_together)
        with ThreadPoolExecutor(3) as pool:
            calls = [
                pool.submit(client.chat.completions.create, model="receiver", messages=ask("Hi"), max_tokens=n)
                for n in (2, 3, 4)
            ]
        assert [calls[n].result().usage.completion_tokens for n in (0, 2)] == [2, 4]
        with pytest.raises(openai.InternalServerError) as failed:
            calls[1].result()
        assert "secret" not in str(failed.value)
        assert all(row.is_done for row in rows)

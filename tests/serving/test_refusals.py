"""Requests that are refused: the status, OpenAI's error shape, and a server that lives on."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from c2c_lightning.serving.http_server import HTTPServer
from c2c_lightning.serving.server_settings import ServerSettings
from tests.serving.served import ask, catalogue, running, until

CHAT = "/v1/chat/completions"
LIMITS = ServerSettings(max_body_bytes=20_000, body_seconds=0.5, max_tokens=16)


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with running(catalogue(), LIMITS) as started:
        yield started


@pytest.fixture
def http(server: HTTPServer) -> Iterator[httpx.Client]:
    """A plain client; the server answers after whatever a test has sent."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
        answer = client.post(CHAT, json=chat())
        assert answer.status_code == 200
        until(lambda: client.get("/health").json() == {"status": "ok", "waiting": 0, "running": 0})


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "c2c", "messages": ask("Hi"), "max_tokens": 2, **fields}


def assert_refused(answer: httpx.Response, status: int, *texts: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert all(text in error["message"] for text in texts), error
    assert answer.headers["x-request-id"]
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"model": "c2c", ', b"\xff\xfe\x00", b'{"a": NaN}', b"[" * 15_000, b"1" * 5_000,
        b'{"model": "c2c", "messages": [{"role": "user", "content": "\xc3"}]}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_json(http: httpx.Client, body: bytes) -> None:
    answer = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"{}", b"3"])
def test_json_that_is_no_request(http: httpx.Client, body: bytes) -> None:
    assert_refused(http.post(CHAT, content=body, headers={"Content-Type": "application/json"}), 400)


TURN, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
IMAGE = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], "at least one message"),
        ("Hi", "list"),
        ([None], "Message 0"),
        ([{"content": "Hi"}], "role None"),
        ([{"role": "robot", "content": "Hi"}], "'robot'"),
        ([{"role": "\ud800", "content": "Hi"}], "known roles"),
        ([{"role": "user", "content": None}], "must be text"),
        ([{"role": "user", "content": {"text": "Hi"}}], "must be text"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
        ([TURN, ANSWER], "last message"),
        ([ANSWER, TURN], "first"),
        ([TURN, {"role": "system", "content": "Be brief."}, TURN], "in front"),
        ([{"role": "system", "content": "Be brief."}], "user's"),
        ([TURN, ANSWER, {"role": "tool", "content": "4", "tool_call_id": "1"}, TURN], "tools are not supported"),
        ([TURN, {**ANSWER, "tool_calls": [{"id": "1"}]}, TURN], "tools are not supported"),
        ([{"role": "user", "content": [IMAGE]}], "'image_url'"),
        ([{"role": "user", "content": ["Hi"]}], "content part"),
    ],
)
def test_messages_that_are_no_conversation(http: httpx.Client, messages: Any, text: str) -> None:
    content = json.dumps(chat(messages=messages))
    assert_refused(http.post(CHAT, content=content, headers={"Content-Type": "application/json"}), 400, text)


def test_parts_of_text_are_joined(http: httpx.Client) -> None:
    parts = [{"type": "text", "text": "What is the "}, {"type": "text", "text": "capital?"}]
    texts = [
        http.post(CHAT, json=chat(messages=[{"role": "user", "content": content}], max_tokens=9)).json()
        for content in (parts, "What is the capital?")
    ]
    assert texts[0]["choices"][0]["message"] == texts[1]["choices"][0]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0}, {"n": 17}, {"temperature": -1}, {"temperature": 3}, {"top_p": 0}, {"max_tokens": 0}, {"seed": 2**64},
        {"stop": [""]}, {"stop": ["a"] * 17}, {"logprobs": True, "top_logprobs": 21}, {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}}, {"presence_penalty": 1}, {"logit_bias": {"1": 5}},
        {"stream": "perhaps"}, {"c2c": {"unknown": 1}}, {"c2c": {"gates": "ajar"}}, {"c2c": {"active_sharers": [1]}},
        {"c2c": {"sharer_context": "a", "sharer_messages": ask("b")}}, {"c2c": {"sharer_messages": []}},
        {"c2c": {"sharer_messages": ["/etc/passwd"]}}, {"c2c": {"donor_messages": ask("b")}}, {"c2c": []},
        {"c2c": {"sharer_messages": [ask("a"), ask("b")]}},
    ],
    ids=str,
)  # fmt: skip
def test_fields_with_impossible_values(http: httpx.Client, fields: dict[str, Any]) -> None:
    assert_refused(http.post(CHAT, json=chat(**fields)), 400)


def test_prompts_that_are_too_long_name_both_lengths(http: httpx.Client) -> None:
    for name in ("receiver", "sharer", "t2t", "c2c"):
        error = assert_refused(http.post(CHAT, json=chat(model=name, messages=ask("é" * 2000))), 400, " 512.")
        assert error["code"] == "context_length_exceeded"
    private = {"c2c": {"sharer_context": "é" * 2000}}
    assert_refused(http.post(CHAT, json=chat(**private)), 400, " 512.")
    assert http.post(CHAT, json=chat(model="receiver", **private)).status_code == 200


def test_bodies_that_are_too_long_or_of_another_type(http: httpx.Client) -> None:
    assert_refused(http.post(CHAT, json=chat(messages=ask("a" * 30_000))), 413, "20000 bytes")
    endless = http.post(CHAT, content=(b"a" * 1000 for _ in range(100)), headers={"Content-Type": "application/json"})
    assert_refused(endless, 413)
    assert_refused(http.post(CHAT, content=b"model=c2c"), 415, "application/json")


def test_unknown_models_paths_and_methods(http: httpx.Client) -> None:
    assert assert_refused(http.post(CHAT, json=chat(model="gpt-9")), 404, "receiver, ")["code"] == "model_not_found"
    for path in ("/v2", "/v1/models/../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "/static/../pyproject.toml"):
        assert_refused(http.get(path), 404)
    assert_refused(http.get(CHAT), 405)


def test_text_to_text_and_controls_need_a_conversation(http: httpx.Client) -> None:
    assert_refused(http.post("/v1/completions", json={"model": "t2t", "prompt": "Hi"}), 400, "conversation")
    body = {"model": "c2c", "prompt": "Hi", "c2c": {"sharer_context": "a"}}
    assert_refused(http.post("/v1/completions", json=body), 400)
    assert_refused(http.post("/v1/completions", json={"model": "c2c", "prompt": [1, 2]}), 400)


def test_request_ids_are_echoed_if_they_are_plain_text(server: HTTPServer, http: httpx.Client) -> None:
    assert http.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in (b"\xff\xfe", b"a" * 500, b"a b"):
        assert http.get("/health", headers=[(b"X-Request-ID", bad)]).headers["x-request-id"].isalnum()


def raw(server: HTTPServer, data: bytes, seconds: float = 5.0) -> bytes:
    """What the server answers to bytes, until it closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_bytes_that_are_no_http(server: HTTPServer, http: httpx.Client) -> None:
    for data in (b"\x00\xff\x16\x03\x01" * 50, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA\x00B: \xff\r\n\r\n"):
        assert raw(server, data + b"\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_body_that_does_not_arrive(server: HTTPServer, http: httpx.Client) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 90\r\n"
    answer = raw(server, head + b'Connection: close\r\n\r\n{"model"')
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error"' in answer


def test_a_thousand_connections_do_not_keep_others_out(server: HTTPServer, http: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connections = []
    try:
        for _ in range(400):  # both ends of each are in this process, which may open 1,024 files
            connections.append(socket.create_connection((host, int(port)), timeout=5))
            connections[-1].sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n")
        assert http.post(CHAT, json=chat()).status_code == 200
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_does_not_read_delays_nobody(server: HTTPServer, http: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(chat(stream=True, max_tokens=16, n=8)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(head.encode() + body)
        start = time.monotonic()
        assert http.post(CHAT, json=chat()).status_code == 200
        assert time.monotonic() - start < 5


def test_keys_are_checked_on_all_paths_of_the_api() -> None:
    with running(catalogue(), ServerSettings(api_key="secret é")) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}):
                assert_refused(client.get("/v1/models", headers=headers), 401, "Bearer")
                assert_refused(client.post(CHAT, json=chat(), headers=headers), 401)
            assert_refused(client.get("/v1/models", headers=[(b"Authorization", b"Bearer \xff\xfe")]), 401)
            good = [(b"Authorization", "Bearer secret é".encode())]
            assert client.get("/v1/models", headers=good).status_code == 200
            assert client.get("/health").status_code == 200
        assert "secret" not in repr(server.answer_server.settings)

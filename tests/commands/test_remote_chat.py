"""`lightning chat --url`: the same chat with a server."""

import io
import signal
from collections.abc import Iterator

import pytest
from rich.console import Console

from c2c_lightning.cli import main
from c2c_lightning.commands.remote_chat import RemoteChat
from c2c_lightning.commands.terminal_chat import TerminalChat
from c2c_lightning.errors import RemoteServerError
from c2c_lightning.serving.http_server import HTTPServer
from tests.serving.served import MESSAGE, catalogue, fused_model, running

TURNS = ["What is the capital of Arlen?", "Name a city."]


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with running(catalogue()) as started:
        yield started


def console() -> Console:
    return Console(file=io.StringIO(), width=500)


def test_it_says_and_compares_as_the_chat_with_a_model_here(
    server: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_new_tokens": 8, "do_sample": False}
    prompt = MESSAGE.message_prompt
    here = TerminalChat(fused_model(), console(), settings, prompt)
    there = RemoteChat(f"{server.url}/v1/", "c2c", None, console(), max_tokens=8)
    outputs = []
    for chat in (here, there):
        for turn in TURNS:
            chat.answer(turn)
        outputs.append(capsys.readouterr().out.split())
    assert outputs[0] == outputs[1]
    assert there.messages == here.session.messages
    for chat in (here, there):
        chat.answer(f"/compare {TURNS[0]}")
    shown = [chat.console.file.getvalue().split() for chat in (here, there)]
    assert shown[0][0] == shown[1][0] == "receiver"
    assert [word for word in shown[0] if word in ("t2t", "c2c")] == [w for w in shown[1] if w in ("t2t", "c2c")]
    there.answer("/reset")
    assert there.messages == []


def test_ctrl_c_ends_an_answer_and_keeps_its_beginning(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = RemoteChat(server.url, "c2c", None, console())
    monkeypatch.setattr(chat, "stream", lambda model, messages: _interrupted())
    chat.answer(TURNS[0])
    assert chat.messages[-1] == {"role": "assistant", "content": "The be"}


def _interrupted() -> Iterator[str]:
    yield "The be"
    signal.raise_signal(signal.SIGINT)


def test_refusals_and_missing_servers_are_one_message(server: HTTPServer) -> None:
    with pytest.raises(RemoteServerError, match="'other' does not exist"):
        RemoteChat(server.url, "other", None, console()).talk("Hi")
    for url, text in (
        ("http://127.0.0.1:9", "lightning serve"),
        ("nowhere", "address"),
        (f"{server.url}/x", "refuses"),
    ):
        with pytest.raises(RemoteServerError, match=text):
            RemoteChat(url, "c2c", None, console()).talk("Hi")


def test_an_input_that_no_server_answers_fails(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    with pytest.raises(SystemExit) as end:
        RemoteChat("http://127.0.0.1:9", "c2c", None, console()).run()
    assert end.value.code == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    RemoteChat(server.url, "c2c", None, console(), max_tokens=2).run()


@pytest.mark.parametrize("args", [[], ["--fuser", "a", "--url", "b"]])
def test_a_fuser_or_an_address_is_needed(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["chat", *args])
    assert end.value.code == 2
    assert "either --fuser" in capsys.readouterr().err

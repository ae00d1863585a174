"""`lightning chat`: what is typed is answered, kept and compared."""

import io
import os
import signal
from typing import Any

import pytest
from rich.console import Console
from transformers import TextStreamer

from c2c_lightning.commands.terminal_chat import StopOnInterrupt, TerminalChat
from c2c_lightning.model.chat_session import ChatSession
from c2c_lightning.responders.base import Answer
from c2c_lightning.responders.single_model import ReceiverOnly
from c2c_lightning.responders.text_to_text import TextToText
from tests.model.test_chat_session import TURNS, build, letters
from tests.model.test_prefix_match import counted


@pytest.fixture
def chat() -> TerminalChat:
    model = build("identity")
    return TerminalChat(model, Console(file=io.StringIO(), width=200), letters(model))


def shown(chat: TerminalChat) -> str:
    assert isinstance(chat.console.file, io.StringIO)
    return chat.console.file.getvalue()


def test_turns_are_streamed_and_kept(chat: TerminalChat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.answer(TURNS[0])
    first = chat.session.messages[-1]["content"]
    with counted(chat.model.receiver) as columns:
        chat.answer(TURNS[1])
    assert capsys.readouterr().out.split() == [first, chat.session.messages[-1]["content"]]
    assert 0 < sum(columns) < chat.session.prompt("").num_receiver_tokens / 2
    assert len(chat.session.messages) == 4


def test_compare_shows_three_and_keeps_nothing(chat: TerminalChat) -> None:
    chat.answer(TURNS[0])
    chat.answer(f"/compare {TURNS[1]}")
    lines = shown(chat).splitlines()
    assert [line.split()[0] for line in lines] == ["receiver", "t2t", "c2c"]
    assert len(chat.session.messages) == 2
    chat.answer(TURNS[1])
    assert lines[2].split()[1] == chat.session.messages[-1]["content"]


def test_reset_starts_anew(chat: TerminalChat) -> None:
    chat.answer(TURNS[0])
    first = chat.session.messages[-1]
    chat.answer("/reset")
    assert chat.session.messages == []
    chat.answer(TURNS[0])
    assert chat.session.messages[-1] == first


def test_a_session_ends_with_its_input(chat: TerminalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\n/what\n{TURNS[0]}\n{'word ' * 600}\n{TURNS[1]}\n"))
    chat.run()
    assert "Type a message" in shown(chat)
    # One message was too long for the receiver: said so, and gone on without it.
    assert "longer than the context" in shown(chat)
    assert [m["content"] for m in chat.session.messages if m["role"] == "user"] == TURNS[:2]


def test_ctrl_c_stops_an_answer_and_keeps_its_beginning(chat: TerminalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.answer(TURNS[0])
    whole = chat.session.peek(TURNS[1], **chat.generate_kwargs)
    monkeypatch.setattr(TextStreamer, "put", lambda self, value: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(StopOnInterrupt, "_stop", lambda self, number, frame: setattr(self, "is_stopped", True))
    handler = signal.getsignal(signal.SIGINT)
    chat.answer(TURNS[1])
    assert signal.getsignal(signal.SIGINT) is handler
    stopped = chat.session.messages[-1]["content"]
    assert len(chat.session.messages) == 4
    assert len(stopped) < len(whole)
    assert whole.startswith(stopped)


def test_a_second_ctrl_c_leaves_the_conversation_as_it_was(chat: TerminalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TURNS[0]}\n{TURNS[1]}\n/compare {TURNS[1]}\n"))
    answers = iter([None, KeyboardInterrupt, KeyboardInterrupt])
    respond = chat.model.receiver.model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        if error := next(answers):
            raise error
        return respond(*args, **kwargs)

    monkeypatch.setattr(chat.model.receiver.model, "generate", generate)
    chat.run()
    assert len(chat.session.messages) == 2
    assert shown(chat).count("stopped") == 2


@pytest.mark.parametrize("text", ["list[int] of [bold]x[/bold]", "[/INST] then :smile:"])
def test_answers_are_printed_as_they_are(text: str, chat: TerminalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextToText, "respond", lambda self, asked, **kwargs: [Answer(text)])
    monkeypatch.setattr(ReceiverOnly, "respond", lambda self, asked, **kwargs: [Answer(text)])
    monkeypatch.setattr(ChatSession, "peek", lambda self, question, **kwargs: text)
    chat.answer("/compare Why?")
    assert shown(chat).splitlines() == [f"{name} {text}" for name in ("receiver", "t2t", "c2c")]

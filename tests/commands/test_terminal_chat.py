"""`lightning chat`: what is typed is answered, kept and compared."""

import io

import pytest
from rich.console import Console

from c2c_lightning.commands.terminal_chat import Chat
from tests.model.test_chat_session import TURNS, build, letters
from tests.model.test_prefix_match import counted


@pytest.fixture
def chat() -> Chat:
    model = build("identity")
    return Chat(model, Console(file=io.StringIO(), width=200), letters(model))


def shown(chat: Chat) -> str:
    assert isinstance(chat.console.file, io.StringIO)
    return chat.console.file.getvalue()


def test_turns_are_streamed_and_kept(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.answer(TURNS[0])
    first = chat.dialogue.messages[-1]["content"]
    with counted(chat.model.receiver) as columns:
        chat.answer(TURNS[1])
    assert capsys.readouterr().out.split() == [first, chat.dialogue.messages[-1]["content"]]
    assert 0 < sum(columns) < chat.dialogue.prompt("").num_receiver_tokens / 2
    assert len(chat.dialogue.messages) == 4


def test_compare_shows_three_and_keeps_nothing(chat: Chat) -> None:
    chat.answer(TURNS[0])
    chat.answer(f"/compare {TURNS[1]}")
    lines = shown(chat).splitlines()
    assert [line.split()[0] for line in lines] == ["receiver", "t2t", "c2c"]
    assert len(chat.dialogue.messages) == 2
    chat.answer(TURNS[1])
    assert lines[2].split()[1] == chat.dialogue.messages[-1]["content"]


def test_reset_starts_anew(chat: Chat) -> None:
    chat.answer(TURNS[0])
    first = chat.dialogue.messages[-1]
    chat.answer("/reset")
    assert chat.dialogue.messages == []
    chat.answer(TURNS[0])
    assert chat.dialogue.messages[-1] == first


def test_a_session_ends_with_its_input(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\n/what\n{TURNS[0]}\n{'word ' * 600}\n{TURNS[1]}\n"))
    chat.run()
    assert "Type a message" in shown(chat)
    # One message was too long for the receiver: said so, and gone on without it.
    assert "longer than the context" in shown(chat)
    assert [m["content"] for m in chat.dialogue.messages if m["role"] == "user"] == TURNS[:2]

from pathlib import Path

import pytest

from c2c_lightning.data.messages import PromptTemplate, check_example, check_messages, from_speakers
from c2c_lightning.errors import DataError, PromptError


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def test_messages_come_back_as_they_are() -> None:
    messages = [{"role": "system", "content": ""}, user("Hi \x00"), assistant("😀"), {"role": "tool", "content": "{}"}]
    assert check_messages(messages) == messages
    assert check_messages(tuple(messages)) == messages


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("Hi", "list of messages"),
        (user("Hi"), "list of messages"),
        (None, "list of messages"),
        ([], "at least one"),
        (["Hi"], "Message 0 is str"),
        ([user("a"), {"role": "bot", "content": "Hi"}], "Message 1 has the role 'bot'.*assistant"),
        ([{"content": "Hi"}], "Message 0 has the role None"),
        ([{"role": ["user"], "content": "Hi"}], "role"),
        ([{"role": "user"}], "content of message 0 is NoneType"),
        ([{"role": "user", "content": ["Hi"]}], "content of message 0 is list"),
        ([user("ab\ud800")], "lone surrogate at character 2"),
    ],
)
@pytest.mark.parametrize("error", [PromptError, DataError])
def test_what_is_no_conversation_is_named(
    wrong: object, match: str, error: type[PromptError] | type[DataError]
) -> None:
    with pytest.raises(error, match=match):
        check_messages(wrong, error)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([assistant("Hi")], "one message only"),
        ([user("a"), user("b")], "must be the assistant's"),
        ([user("a"), assistant(" \n")], "empty"),
    ],
)
def test_what_cannot_be_trained_on_is_named(wrong: object, match: str) -> None:
    with pytest.raises(DataError, match=match):
        check_example(wrong)


def test_speakers_become_roles() -> None:
    turns = [
        {"from": "system", "value": "Be terse."},
        {"from": "human", "value": "Hi", "weight": None},
        {"from": "gpt", "value": "Hello"},
    ]
    assert from_speakers(turns) == [{"role": "system", "content": "Be terse."}, user("Hi"), assistant("Hello")]


@pytest.mark.parametrize(
    ("turns", "match"),
    [
        ("Hi", "list of turns"),
        ([], "at least one"),
        (["Hi"], "Turn 0"),
        ([{"from": "human"}], "Turn 0"),
        ([{"from": "narrator", "value": "Hi"}], "narrator"),
        ([{"from": "human", "value": None}], "content of message 0"),
    ],
)
def test_turns_that_do_not_fit_are_named(turns: object, match: str) -> None:
    with pytest.raises(DataError, match=match):
        from_speakers(turns)


def test_templates_by_name_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    assert PromptTemplate.load(tmp_path / "mine.jinja") == PromptTemplate("mine", "{{ messages[0]['content'] }}")
    for name in ("question_answer", "dialogue", "plain"):
        assert PromptTemplate.load(name).name == name
    with pytest.raises(PromptError, match="dialogue, plain, question_answer"):
        PromptTemplate.load("question-answer")

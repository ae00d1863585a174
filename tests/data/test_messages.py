from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.messages import (
    check_example,
    check_messages,
    from_speakers,
    is_trained,
    template_kwargs_of,
)
from c2c_lightning.data.prompt_template import PromptTemplate
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
def test_malformed_conversations_are_named(
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
        ([user("a"), {**assistant("b"), "weight": 0}], "weight 0"),
        ([user("a"), {**assistant("b"), "weight": 0.5}], "must be 0 or 1"),
    ],
)
def test_conversations_without_a_target_are_named(wrong: object, match: str) -> None:
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
    assert PromptTemplate.from_name_or_file(tmp_path / "mine.jinja") == PromptTemplate(
        "mine", "{{ messages[0]['content'] }}"
    )
    for name in ("question_answer", "dialogue", "plain"):
        assert PromptTemplate.from_name_or_file(name).name == name
    with pytest.raises(PromptError, match="dialogue, plain, question_answer"):
        PromptTemplate.from_name_or_file("question-answer")


def test_text_of_a_template_is_never_a_path(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret", encoding="utf-8")
    assert PromptTemplate.from_text(str(tmp_path / "secret")).jinja == str(tmp_path / "secret")
    assert PromptTemplate.from_text("plain").jinja == "plain"


@pytest.mark.parametrize(
    ("weight", "trained"), [(0, False), (0.0, False), (False, False), (1, True), (1.0, True), (None, True)]
)
def test_the_weight_of_an_answer(weight: object, trained: bool) -> None:
    assert is_trained({**assistant("b"), "weight": weight}) == trained


def test_null_keys_are_left_out_and_all_others_kept() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}], "name": None}
    assert check_messages([user("a"), call]) == [user("a"), {k: v for k, v in call.items() if k != "name"}]
    with pytest.raises(PromptError, match="content of message 0 is NoneType"):
        check_messages([{"role": "assistant", "content": None, "tool_calls": []}])


def test_speakers_keep_their_other_keys() -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 0}]
    assert from_speakers(turns)[1] == {**assistant("b"), "weight": 0}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, {}),
        ({"tools": None, "documents": None, "chat_template_kwargs": None}, {}),
        ({"tools": [{"name": "add"}]}, {"tools": [{"name": "add"}]}),
        ({"tools": '[{"name": "add"}]'}, {"tools": [{"name": "add"}]}),
        ({"documents": [{"title": "t"}]}, {"documents": [{"title": "t"}]}),
        ({"chat_template_kwargs": {"enable_thinking": True, "x": None}}, {"enable_thinking": True}),
    ],
)
def test_template_arguments_of_a_row(row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert template_kwargs_of(row) == expected


@pytest.mark.parametrize("row", [{"tools": "add"}, {"tools": {"name": "add"}}, {"chat_template_kwargs": [1]}])
def test_template_arguments_that_do_not_fit_are_named(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(row))):
        template_kwargs_of(row)

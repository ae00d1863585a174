import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from c2c_lightning.data.messages import Conversation
from c2c_lightning.data.readers import json_lines
from c2c_lightning.data.readers.files import load_rows
from c2c_lightning.data.sources import (
    GSM8K,
    LongBench,
    Messages,
    Mixture,
    MultipleChoice,
    OpenHermes,
    PromptResponse,
    Source,
    TableSource,
)
from c2c_lightning.errors import DataError
from tests.data.rows import chat_rows


def said(source: Source, row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in source.messages(row)[0]]


def test_messages_with_private_context() -> None:
    given = [{"role": "user", "content": "document, question"}]
    row = {"messages": chat_rows(1)[0]["messages"], "sharer_messages": given}
    assert Messages("x.jsonl").messages(row) == (row["messages"], given)
    assert Messages("x.jsonl").messages({**row, "sharer_messages": None})[1] is None


def test_a_context_for_sharers_is_put_in_front_of_the_question() -> None:
    question, answer = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "She."}
    note = {"role": "system", "content": "Be brief."}
    row = {"messages": [note, question, answer], "sharer_context": "A text."}
    messages, private = Messages("x.jsonl").messages(row)
    assert messages == row["messages"]
    assert private == [note, {"role": "user", "content": "A text.\n\nWho?"}, answer]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sharer_context": 17}, "`sharer_context` must be text, but is int"),
        ({"sharer_messages": [{"role": "user", "content": "q"}]}, "both `sharer_messages` and `sharer_context`"),
        ({"messages": [{"role": "system", "content": "s"}]}, "the row has none"),
    ],
)
def test_contexts_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    row = {"messages": chat_rows(1)[0]["messages"], "sharer_context": "A text.", **changed}
    with pytest.raises(DataError, match=message):
        Messages("x.jsonl").messages(row)


def test_openhermes_speakers() -> None:
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    messages, _ = OpenHermes("x.jsonl").messages({"conversations": turns})
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]


def test_prompt_and_response_columns_with_context() -> None:
    source = PromptResponse("x.jsonl", prompt="q", response="a", context="doc")
    messages, private = source.messages({"q": "Who?", "a": "She.", "doc": "A text."})
    assert [message["content"] for message in messages] == ["Who?", "She."]
    assert private == [{"role": "user", "content": "A text.\n\nWho?"}]
    with pytest.raises(DataError, match="no `a`; it has `q`"):
        PromptResponse("x.jsonl", prompt="q", response="a").messages({"q": "Who?"})


def test_multiple_choice_is_worded_as_in_the_published_training_prompt() -> None:
    row = {"question": "2 {choices}?", "choices": ["one", "two"], "answer": 1}
    assert said(MultipleChoice("x.jsonl"), row) == [
        "Question: 2 {choices}?\n\nChoices:\nA. one\nB. two",
        "The correct answer is B.",
    ]
    assert said(MultipleChoice("x.jsonl", answer="{choice}"), {**row, "answer": "A"})[1] == "one"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": 2}, "2 choices, counted from 0"),
        ({"answer": "Z"}, "25"),
        ({"answer": None}, "number from 0 or a letter"),
        ({"answer": True}, "number from 0 or a letter"),
        ({"choices": ["one"]}, "2 to 26"),
        ({"choices": "one"}, "list of texts"),
    ],
)
def test_multiple_choice_that_does_not_fit(changed: dict[str, Any], message: str) -> None:
    row = {"question": "2?", "choices": ["one", "two"], "answer": 1, **changed}
    with pytest.raises(DataError, match=message):
        MultipleChoice("x.jsonl").messages(row)


def test_gsm8k_without_calculator_marks() -> None:
    row = {"question": "q", "answer": "1+1=<<1+1=2>>2 so\n#### 2"}
    assert said(GSM8K("x.jsonl"), row)[1] == "1+1=2 so\n#### 2"


def test_longbench_shared_and_private() -> None:
    row = {"context": "A {input} text", "input": "Who?", "answers": ["She", "he"]}
    messages, private = LongBench("x.jsonl").messages(row)
    assert "A {input} text" in messages[0]["content"]
    assert messages[1]["content"] == "She"
    assert private is None
    messages, private = LongBench("x.jsonl", private_context=True).messages(row)
    assert messages[0]["content"] == "Who?"
    assert private is not None
    assert "text" in private[0]["content"]


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".parquet"):
        Dataset.from_list(rows).to_parquet(str(path))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "folder", "saved", "dict"])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_kind_of_file_gives_the_same_rows(name: str, streaming: bool, tmp_path: Path) -> None:
    rows = chat_rows(30)
    if name == "folder":
        (tmp_path / name).mkdir()
        write(tmp_path / name, "a.jsonl", rows[:10])
        path = write(tmp_path / name, "b.jsonl", rows[10:]).parent
    elif name in ("saved", "dict"):
        table = Dataset.from_list(rows)
        path = tmp_path / name
        (table if name == "saved" else DatasetDict({"train": table, "other": table})).save_to_disk(str(path))
    else:
        path = write(tmp_path, name, rows)
    loaded = load_rows(str(path), streaming=streaming)
    assert [json_lines.decode(row)["messages"] for row in loaded] == [row["messages"] for row in rows]


def test_pieces_make_up_the_file_and_know_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", chat_rows(200))
    pieces = json_lines.pieces_of(path, 1000)
    assert len(pieces) > 5
    rows = list(json_lines.read_pieces(pieces, 2**20))
    assert [row[json_lines.ORIGIN] for row in rows] == [f"{path}:{line}" for line in range(1, 201)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "no data at"),
        ("./missing", None, "no data at"),
        ("empty.jsonl", b"", "is empty"),
        ("a.txt", b"a,b\n", "must be JSON"),
        ("cut.parquet", b"PAR1nonsense", "cannot be read"),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 5000, mtime=0)[:40], "cut short"),
        ("broken.json", b'[{"a": 1},', "not a valid one"),
    ],
    # By the file alone: two workers must collect the same names.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_cannot_be_read_are_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(load_rows(str(path), streaming=True))
    assert path.name in str(error.value)


def test_a_hub_name_offline_is_one_message() -> None:
    with pytest.raises(DataError, match="`owner/nothing` is no file or folder here"):
        load_rows("owner/nothing")


class UserSource(TableSource):
    def messages(self, row: Any) -> tuple[Conversation, Conversation | None]:
        return [{"role": "user", "content": row["a"]}, {"role": "assistant", "content": "b"}], None


def test_fingerprints_follow_file_arguments_and_code(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", chat_rows(3))
    first = Messages(str(path)).fingerprint()
    assert Messages(str(path)).fingerprint() == first
    assert UserSource(str(path)).fingerprint() != first
    assert Messages(str(path), max_row_bytes=10).fingerprint() != first
    write(tmp_path, "a.jsonl", chat_rows(4))
    assert Messages(str(path)).fingerprint() != first


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_mixtures_need_weights_above_zero(weights: list[float]) -> None:
    with pytest.raises(DataError, match="weight"):
        Mixture([Messages("a.jsonl"), Messages("b.jsonl")], weights)

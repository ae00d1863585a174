"""Broken rows are counted and named, and fail the run when there are too many."""

import json
from pathlib import Path
from typing import Any

import pytest

from c2c_lightning.data.datamodule import InstructionDataModule
from c2c_lightning.data.preprocessing.row_encoder import MALFORMED, NO_RESPONSE, TOO_LARGE, Rejected, RowEncoder
from c2c_lightning.data.sources import Messages
from c2c_lightning.errors import DataError
from tests.data.encoders import shared_encoder
from tests.data.rows import chat_rows


def chat(prompt: Any = "q", response: Any = "a", **message: Any) -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response, **message}]}
    )


BROKEN: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"messages": [', MALFORMED),
    "not closed": (chat()[:-3].encode(), MALFORMED),
    "two rows in a line": (chat().encode() * 2, MALFORMED),
    "Latin-1": (chat("caf\u00e9").replace("\\u00e9", "\u00e9").encode("latin-1"), MALFORMED),
    "raw NUL": (b"\x00\x00\x00", MALFORMED),
    "escaped NUL": (chat("a\x00b").encode(), MALFORMED),
    "lone surrogate": (chat("half \ud83d").encode(), MALFORMED),
    "a list": (b"[1, 2]", MALFORMED),
    "a number": (b"17", MALFORMED),
    "null": (b"null", MALFORMED),
    "no messages": (b'{"text": "x"}', MALFORMED),
    "messages is a text": (b'{"messages": "hello"}', MALFORMED),
    "messages is empty": (b'{"messages": []}', MALFORMED),
    "message is no object": (b'{"messages": ["a", "b"]}', MALFORMED),
    "no role": (b'{"messages": [{"content": "q"}, {"role": "assistant", "content": "a"}]}', MALFORMED),
    "unknown role": (chat(role="robot").encode(), MALFORMED),
    "content is a number": (chat(17).encode(), MALFORMED),
    "content is null": (chat(None).encode(), MALFORMED),
    "only a question": (b'{"messages": [{"role": "user", "content": "q"}]}', MALFORMED),
    "ends with a question": (chat(role="user").encode(), MALFORMED),
    "empty response": (chat("q", "").encode(), NO_RESPONSE),
    "blank response": (chat("q", " \n\t").encode(), NO_RESPONSE),
    "10 MB": (chat("x" * 10_000_000).encode(), TOO_LARGE),
    "deeply nested": (b"[" * 100_000, MALFORMED),
}


def write(path: Path, lines: list[bytes]) -> str:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


@pytest.mark.parametrize("name", BROKEN)
def test_each_kind_is_counted_with_file_and_line(name: str, tmp_path: Path) -> None:
    line, kind = BROKEN[name]
    good = [json.dumps(row).encode() for row in chat_rows(3)]
    source = Messages(write(tmp_path / "data.jsonl", [good[0], line, b"", good[1], good[2]]))
    results = RowEncoder(source, shared_encoder())(list(source.load()), 0)
    assert [isinstance(result, Rejected) for result in results] == [False, True, False, False]
    rejected = results[1]
    assert isinstance(rejected, Rejected)
    assert (rejected.kind, rejected.origin) == (kind, f"{tmp_path}/data.jsonl:2")
    assert rejected.why
    assert len(rejected.why) < 300


@pytest.mark.parametrize("streaming", [False, True])
def test_the_run_fails_above_the_share_and_names_the_first_rows(streaming: bool, tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in chat_rows(1100)]
    path = write(tmp_path / "data.jsonl", [*good[:40], *[b"{broken"] * 60, *good[40:]])
    data = InstructionDataModule(
        Messages(path, streaming=streaming),
        max_bad_share=0.05,
        validation_share=0.0,
        encoder=shared_encoder(),
        cache_dir=str(tmp_path / "cache"),
        stream_rows=1200,
    )
    with pytest.raises(DataError, match=r"`max_bad_share` allows 5.00%") as error:
        next(iter(data.train_dataloader()))
    assert "data.jsonl:41: The row is not JSON" in str(error.value)
    assert "malformed: 60" in str(error.value)


def test_below_the_share_they_are_in_the_report(tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in chat_rows(50)]
    path = write(tmp_path / "data.jsonl", [*good, b"{broken", chat("q", "").encode()])
    data = InstructionDataModule(
        Messages(path), max_bad_share=0.1, max_length=60, encoder=shared_encoder(), cache_dir=str(tmp_path / "cache")
    )
    data.prepare()
    source = data.report.sources[0]
    assert source.dropped["malformed"] == 1
    assert source.dropped["empty response"] == 1
    assert source.dropped["longer than max_length"] > 0
    assert source.rows == 52 == source.kept + source.dropped.total() + source.held_out
    assert "data.jsonl:51" in data.report.to_text()
    json.dumps(data.report.to_dict())


@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_left_is_an_error(streaming: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [b"{broken"] * 3)
    data = InstructionDataModule(
        Messages(path, streaming=streaming),
        max_bad_share=1.0,
        validation_share=0.0,
        encoder=shared_encoder(),
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(DataError, match="No row of"):
        next(iter(data.train_dataloader()))


def test_a_file_of_blank_lines_is_an_error(tmp_path: Path) -> None:
    data = InstructionDataModule(
        Messages(write(tmp_path / "data.jsonl", [b"", b"  "])), encoder=shared_encoder(), cache_dir=str(tmp_path / "c")
    )
    with pytest.raises(DataError, match="no rows"):
        data.prepare()

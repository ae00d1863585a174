"""Contents of files: formats that are read under any name, and formats that are refused by name."""

import bz2
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from c2c_lightning.data.readers.files import load_rows, read_rows
from c2c_lightning.data.readers.json_lines import ORIGIN, pieces_of, read_pieces
from c2c_lightning.errors import DataError

ROWS = [{"a": "x"}, {"a": "y"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstandard(content: bytes) -> bytes:
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as compressed:
        compressed.write(content)
    return bytes(stream.getvalue())


READ: dict[str, tuple[str, bytes]] = {
    "Zstandard": ("a.jsonl.zst", zstandard(LINES)),
    "bzip2": ("a.jsonl.bz2", bz2.compress(LINES)),
    "gzip in upper case": ("a.JSONL.GZ", gzip.compress(LINES)),
    "upper case": ("a.JSONL", LINES),
    "CSV": ("a.csv", b"a\nx\ny\n"),
    "an array in JSON lines": ("a.jsonl", json.dumps(ROWS).encode()),
    "an indented array in JSON lines": ("a.jsonl", json.dumps(ROWS, indent=2).encode()),
    "rows below `data`": ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=2).encode()),
    "rows below `data` in one line": ("a.jsonl", json.dumps({"data": ROWS}).encode()),
    "an array, compressed": ("a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
    "rows below `data`, compressed": ("a.jsonl.bz2", bz2.compress(json.dumps({"data": ROWS}, indent=1).encode())),
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + LINES),
    "JSON lines named .json": ("a.json", LINES),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("name", "content"), READ.values(), ids=READ)
def test_contents_that_are_read(name: str, content: bytes, streaming: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert [row for _, row in read_rows(str(tmp_path / name), streaming=streaming)] == ROWS


def test_one_indented_row_is_a_row(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "q"}]}
    (tmp_path / "a.json").write_text(json.dumps(row, indent=1))
    assert [row for _, row in read_rows(str(tmp_path / "a.json"))] == [row]


def parquet(folder: Path) -> bytes:
    Dataset.from_list(ROWS * 1000).to_parquet(str(folder / "whole"))
    return (folder / "whole").read_bytes()


NAMED: dict[str, tuple[str, bytes, str]] = {
    "UTF-16": ("a.jsonl", LINES.decode().encode("utf-16"), "UTF-16. Convert it: `iconv"),
    "UTF-16 without mark": ("a.jsonl", LINES.decode().encode("utf-16-le"), "UTF-16"),
    "UTF-16 that begins with space": ("a.jsonl", b" \0" + LINES.decode().encode("utf-16-le"), "UTF-16LE"),
    "an array in UTF-16": ("a.json", json.dumps(ROWS).encode("utf-16-be"), "UTF-16BE"),
    "UTF-32": ("a.jsonl", LINES.decode().encode("utf-32"), "UTF-32"),
    "zeros": ("a.jsonl", bytes(80), "zeros"),
    "CSV in UTF-16": ("a.csv", "a,b\nx,y\n".encode("utf-16"), "not CSV in UTF-8"),
    "CSV with semicolons": ("a.csv", b"a;b\nx;y\n", "not separated by commas"),
    "CSV with cells beyond its header": ("a.csv", b"a,b\nx,y,z\n", "2 names in its header, but 3 cells"),
    "Parquet named JSON": ("a.jsonl", b"PAR1xxxx", "Parquet. Name it `.parquet`"),
    "gzip without its ending": ("a.jsonl", gzip.compress(LINES), "gzip. Name it"),
    "a spreadsheet": ("a.json", b"PK\x03\x04xx", "spreadsheet"),
    "an error page": ("a.jsonl", b"<!DOCTYPE html>", "error page"),
    "a pointer": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "gzip cut short": ("a.jsonl.gz", gzip.compress(bytes(range(256)) * 4000 + LINES)[:2000], "cut short"),
    "gzip that is none": ("a.jsonl.gz", LINES, "cannot be read to its end"),
    "Zstandard cut short": ("a.jsonl.zst", zstandard(LINES * 9)[:-5], "cut short"),
    "Parquet without its end": ("a.parquet", b"PAR1" + bytes(500), "a.parquet` cannot be read as Parquet"),
    "text": ("a.txt", b"x", "must be JSON"),
}


@pytest.mark.parametrize("streaming", [False, True])
def test_cells_of_csv_stay_the_text_that_they_are(streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,\n007,NA,1\nNone,,2.50\n")
    rows = [row for _, row in read_rows(str(tmp_path / "a.csv"), streaming=streaming)]
    names = ("a", "b", "Unnamed: 2")
    assert [tuple(row[name] for name in names) for row in rows] == [("007", "NA", "1"), ("None", None, "2.50")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("name", "content", "message"), NAMED.values(), ids=NAMED)
def test_contents_that_are_named(name: str, content: bytes, message: str, streaming: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(load_rows(str(tmp_path / name), streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_damaged_within_is_named(streaming: bool, tmp_path: Path) -> None:
    content = bytearray(parquet(tmp_path))
    content[4:200] = bytes(196)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet.*cannot be read"):
        list(read_rows(str(tmp_path / "a.parquet"), streaming=streaming))


def test_gzip_cut_in_the_middle_leaves_no_half_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": f"{number * 7919 % 10007} {number}"} for number in range(20000)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.jsonl\.gz` cannot be read to its end.*cut short"):
            load_rows(str(path))
    path.write_bytes(whole)
    assert len(load_rows(str(path))) == len(rows)  # type: ignore[arg-type]


def test_a_line_larger_than_allowed_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"a": "first"}\n{"a": "')
        for _ in range(64):
            stream.write(b"x" * 2**20)
        stream.write(b'"}\n{"a": "last"}\n')
    tracemalloc.start()
    rows: list[dict[str, Any]] = list(read_pieces(pieces_of(path), 2**20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row[ORIGIN].rsplit(":")[-1] for row in rows] == ["1", "2", "3"]
    assert [len(row["__line__"]) for row in rows] == [14, 0, 13]
    assert rows[1]["__bytes__"] > 64 * 2**20
    assert peak < 16 * 2**20

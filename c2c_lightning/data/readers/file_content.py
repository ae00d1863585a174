"""Content of files by their first bytes: JSON lines, one JSON document, or another format, which is refused by name."""

import csv
import io
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from c2c_lightning.errors import DataError

# Larger documents would not fit into memory once parsed.
_MAX_DOCUMENT_BYTES = 2**30
# Rows are smaller than this; only documents have longer lines.
_MAX_LINE_BYTES = 2**26
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_ROW_KEYS = ("data", "rows", "examples", "instances")

# First bytes, the kind of content, and what to do.
_SIGNATURES = (
    (b"\0\0\0\0", "zeros", "Was the machine stopped while it was written?"),
    (b"\xff\xfe\0\0", "text in UTF-32", "Convert it: `iconv -f UTF-32 -t UTF-8`"),
    (b"\xff\xfe", "text in UTF-16", "Convert it: `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "text in UTF-16", "Convert it: `iconv -f UTF-16 -t UTF-8`"),
    (b"PAR1", "Parquet", "Name it `.parquet`"),
    (b"ARROW1", "Arrow", "Name it `.arrow`"),
    (b"\x1f\x8b", "gzip", "Name it `.jsonl.gz`"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "Name it `.jsonl.zst`"),
    (b"BZh", "bzip2", "Name it `.jsonl.bz2`"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "Unpack it, or export it as CSV or JSON lines"),
    (b"version https://git-lfs", "a Git LFS pointer and not the data", "Fetch the data: `git lfs pull`"),
    (b"<", "HTML or XML", "Was an error page downloaded in place of the data?"),
)


def compression_of(file: Path) -> str | None:
    """Arrow's name of the compression that the ending of a file's name says."""
    return _COMPRESSIONS.get(file.suffix.lower())


def check_content(file: Path) -> None:
    """Refuse a file that is named as JSON but looks like something else; the message says what to do."""
    with file.open("rb") as stream:
        head = stream.read(64)
    if compression_of(file):
        return
    for signature, kind, advice in _SIGNATURES:
        if head.startswith(signature):
            raise DataError(f"`{file}` is named as JSON, but looks like {kind}. {advice}.")
    if b"\0" in head[:4]:
        name = "UTF-16BE" if head[:1] == b"\0" else "UTF-16LE"
        raise DataError(f"`{file}` looks like text in UTF-16. Convert it: `iconv -f {name} -t UTF-8`.")


def header_of(file: Path) -> list[str]:
    """The column names of a CSV file.

    Raises:
        DataError: it is not UTF-8, not separated by commas, or its rows have more cells than its header.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header, first = [*islice(csv.reader(stream), 2), [], []][:2]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"`{file}` is not CSV in UTF-8 ({problem}). Convert it, for example with `iconv`.") from problem
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise DataError(f"`{file}` is not separated by commas: its header is {header[0]!r:.80}. Export it with commas.")
    if len(first) > len(header):
        raise DataError(
            f"`{file}` has {len(header)} names in its header, but {len(first)} cells in its first row. Quote cells "
            "that hold commas."
        )
    return header


def opened(file: Path) -> BinaryIO:
    """The bytes of a file, decompressed by the ending of its name."""
    kind = compression_of(file)
    return file.open("rb") if kind is None else io.BufferedReader(pa.input_stream(str(file), compression=kind))


def rows_of_document(file: Path) -> list[Any] | None:
    """The rows of a file that is one JSON document, not one document per line; None for JSON lines.

    A document is an array of rows, an object with the rows below a key such as `data`, or one row.

    Raises:
        DataError: for a `.json` file that is an array, but not a valid one, and for a document that is too large.
    """
    try:
        first, is_only_line = _first_line(file)
    except (OSError, EOFError):  # damaged, which whoever reads the lines says
        return None
    if first[:1] not in (b"[", b"{") or (first[:1] == b"{" and _is_row(first, is_only_line)):
        return None
    try:
        document = _document(file)
    except (ValueError, RecursionError, OSError, EOFError) as problem:
        if first[:1] == b"[" and file.suffix.lower() == ".json":
            raise DataError(f"`{file}` is one JSON array, but not a valid one: {problem}.") from problem
        return None  # JSON lines whose first row is malformed
    if isinstance(document, list):
        return document
    return next(
        (document[key] for key in _ROW_KEYS if _is_rows(document.get(key))), None if is_only_line else [document]
    )


def _document(file: Path) -> Any:
    with opened(file) as stream:
        content = stream.read(_MAX_DOCUMENT_BYTES + 1)
    if len(content) > _MAX_DOCUMENT_BYTES:
        raise DataError(
            f"`{file}` is one JSON document of more than {_MAX_DOCUMENT_BYTES / 2**30:.0f} GiB, which must be read at "
            "once. Convert it to JSON lines: `jq -c '.[]'`."
        )
    return json.loads(content.decode("utf-8-sig"))


def _first_line(file: Path) -> tuple[bytes, bool]:
    """The first line that is not blank, no more than `_MAX_LINE_BYTES` of it, and whether no other follows."""
    with opened(file) as stream:
        while line := stream.readline(_MAX_LINE_BYTES):
            # Files from Windows may begin with a byte order mark.
            stripped = line.removeprefix(b"\xef\xbb\xbf").strip()
            if stripped:
                is_cut = len(line) == _MAX_LINE_BYTES
                return stripped, not is_cut and not any(rest.strip() for rest in iter(lambda: stream.read(2**20), b""))
    return b"", True


def _is_row(first: bytes, is_only_line: bool) -> bool:
    """Whether the first line is a row: it is complete, or too long for the beginning of an indented document."""
    return not is_only_line and (len(first) > _MAX_LINE_BYTES // 2 or _is_json(first))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)

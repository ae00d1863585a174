"""JSON lines, read so that a line that is no JSON is one bad row and not the end of the run."""

import gzip
import json
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from c2c_lightning.errors import DataError

PIECE_BYTES = 2**20
"""Files are read in pieces of about this size, so that several readers can share one file."""

LINE, ORIGIN, BYTES = "__line__", "__origin__", "__bytes__"
"""Columns of rows that are still text: the line, `FILE:LINE_NUMBER`, and the line's length in bytes."""

FEATURES = datasets.Features(
    {LINE: datasets.Value("large_binary"), ORIGIN: datasets.Value("string"), BYTES: datasets.Value("int64")}
)


class Piece(NamedTuple):
    """A part of a file that begins and ends at line borders.

    Attributes:
        path: the file.
        start: first byte.
        end: first byte after it; -1 for the whole of a file that cannot be entered in the middle.
        first_line: number of its first line, from 1.
        changed: when the file was changed last, in ns, so that caches notice.
    """

    path: str
    start: int
    end: int
    first_line: int
    changed: int


class TooLargeError(DataError):
    """A row with more bytes than allowed."""


def pieces_of(file: Path, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Cut a file at line borders, counting lines on the way.

    Args:
        file: JSON lines, plain or gzip, or one JSON array.
        piece_bytes: about how large a piece is.

    Returns:
        Pieces in order that make up the file.
    """
    changed = file.stat().st_mtime_ns
    if file.suffix == ".gz" or _is_array(file):
        return [Piece(str(file), 0, -1, 1, changed)]
    pieces: list[Piece] = []
    start, line = 0, 1
    with file.open("rb") as stream:
        while True:
            lines = stream.readlines(piece_bytes)
            if not lines:
                return pieces
            pieces.append(Piece(str(file), start, stream.tell(), line, changed))
            start, line = stream.tell(), line + len(lines)


def read_pieces(pieces: list[Piece], max_row_bytes: int) -> Iterator[dict[str, Any]]:
    """The rows of pieces, still as text. Blank lines are no rows.

    Args:
        pieces: where to read.
        max_row_bytes: larger rows come without their content.

    Yields:
        Rows with the columns of `FEATURES`.
    """
    for piece in map(Piece._make, pieces):
        for number, line in _lines(piece):
            if line:
                kept = line if len(line) <= max_row_bytes else b""
                yield {LINE: kept, ORIGIN: f"{piece.path}:{number}", BYTES: len(line)}


def decode(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row that a line of JSON says; other rows are returned as they are.

    Args:
        row: a row of `load_rows`.

    Returns:
        Its columns.

    Raises:
        TooLargeError: when it has more bytes than allowed.
        DataError: when it is not a JSON object in UTF-8.
    """
    if LINE not in row:
        return row
    line = row[LINE]
    if not line:
        raise TooLargeError(f"The row has {row[BYTES]:,} bytes; `max_row_bytes` allows fewer.")
    try:
        decoded = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        raise DataError(f"The row is not UTF-8 (byte {problem.start}).") from problem
    except (ValueError, RecursionError) as problem:
        raise DataError(f"The row is not JSON: {problem}.") from problem
    if not isinstance(decoded, dict):
        raise DataError(f"The row must be a JSON object, but is {type(decoded).__name__}.")
    return decoded


def _is_array(file: Path) -> bool:
    if file.suffix != ".json":
        return False
    with file.open("rb") as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _lines(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, or the numbered items of an array, without surrounding space."""
    path = Path(piece.path)
    if piece.end < 0 and path.suffix != ".gz":
        yield from _items(path)
        return
    with _opened(path) as stream:
        stream.seek(piece.start)
        try:
            for number, line in enumerate(stream, piece.first_line):
                yield number, line.strip()
                if 0 <= piece.end <= stream.tell():
                    return
        except (OSError, EOFError) as problem:
            raise DataError(f"`{path}` cannot be read on: {problem}. Was its download cut short?") from problem


def _opened(path: Path) -> BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _items(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        items = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise DataError(f"`{path}` is one JSON array, but not a valid one: {problem}.") from problem
    for number, item in enumerate(items, 1):
        yield number, json.dumps(item).encode()

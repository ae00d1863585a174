"""JSON lines, read so that a line that is no JSON is one bad row and not the end of the run."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import datasets

from c2c_lightning.data.readers.file_content import check_content, compression_of, opened, rows_of_document
from c2c_lightning.errors import DataError

PIECE_BYTES = 2**20
"""Files are divided into pieces of about this size, so that several readers can share one file."""

LINE, ORIGIN, BYTES = "__line__", "__origin__", "__bytes__"
"""Columns of rows that are still text: the line, `FILE:LINE_NUMBER`, and the line's length in bytes."""

FEATURES = datasets.Features(
    {LINE: datasets.Value("large_binary"), ORIGIN: datasets.Value("string"), BYTES: datasets.Value("int64")}
)


class Piece(NamedTuple):
    """The bytes [start, end) of a file, at line borders; `end` is -1 for the whole of a file that cannot be divided.

    Lines count from 1. `modified` is the time of the file's last change in ns, so that caches notice one.
    """

    path: str
    start: int
    end: int
    first_line: int
    modified: int


class TooLargeError(DataError):
    """A row with more bytes than allowed."""


def pieces_of(file: Path, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """The pieces that make up a file of JSON lines, or of one JSON document, in order; borders are line borders."""
    modified = file.stat().st_mtime_ns
    check_content(file)
    if compression_of(file) or rows_of_document(file) is not None:
        return [Piece(str(file), 0, -1, 1, modified)]
    pieces: list[Piece] = []
    start, line, position, lines = 0, 1, 0, 0
    with file.open("rb") as stream:
        # Never a whole line at once: a line may be larger than the memory.
        while part := stream.readline(piece_bytes):
            position += len(part)
            is_line_end = part.endswith(b"\n")
            lines += is_line_end
            if is_line_end and position - start >= piece_bytes:
                pieces.append(Piece(str(file), start, position, line, modified))
                start, line, lines = position, line + lines, 0
    return [*pieces, Piece(str(file), start, position, line, modified)] if position > start else pieces


def read_pieces(pieces: list[Piece], max_row_bytes: int) -> Iterator[dict[str, Any]]:
    """The rows of pieces, still as text, with the columns of `FEATURES`. Blank lines are no rows."""
    for piece in map(Piece._make, pieces):
        for number, line, num_bytes in _lines(piece, max_row_bytes):
            if num_bytes:
                yield {LINE: line, ORIGIN: f"{piece.path}:{number}", BYTES: num_bytes}


def decode(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The columns of a row of `load_rows`: a line of JSON is parsed; a row of a table loses its nested null keys.

    Raises:
        TooLargeError: when it has more bytes than allowed.
        DataError: when it is not a JSON object in UTF-8.
    """
    if LINE not in row:
        return {name: _without_nulls(value) for name, value in row.items()}
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


def _without_nulls(value: Any) -> Any:
    """A nested value without null keys: tables give all structs of a column the keys of any of them."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list) and any(isinstance(entry, Mapping | list) for entry in value):
        return [_without_nulls(entry) for entry in value]
    return value


def _lines(piece: Piece, max_bytes: int) -> Iterator[tuple[int, bytes, int]]:
    """Number, content and length of each line, or of each row of a document."""
    path = Path(piece.path)
    rows = rows_of_document(path) if piece.end < 0 else None
    if rows is not None:
        for number, row in enumerate(rows, 1):
            line = json.dumps(row).encode()
            yield number, line if len(line) <= max_bytes else b"", len(line)
        return
    with opened(path) as stream:
        try:
            if piece.start:
                stream.seek(piece.start)
            for number, (line, num_bytes) in enumerate(_bounded_lines(stream, max_bytes), piece.first_line):
                yield number, line, num_bytes
                if 0 <= piece.end <= stream.tell():
                    return
        except (OSError, EOFError) as problem:
            raise DataError(f"`{path}` cannot be read to its end: {problem}. Was its download cut short?") from problem


def _bounded_lines(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Each line without surrounding space, and its length; without its content if it is longer than `max_bytes`."""
    # Two bytes more, for the line end `\r\n`.
    while line := stream.readline(max_bytes + 2):
        num_bytes, part = len(line), line
        while not part.endswith(b"\n") and (part := stream.readline(PIECE_BYTES)):
            num_bytes += len(part)
        stripped = line.strip()
        if num_bytes == len(line):
            num_bytes = len(stripped)
        yield (stripped if num_bytes <= max_bytes else b""), num_bytes

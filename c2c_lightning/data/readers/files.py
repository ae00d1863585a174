"""Data files and hub data sets to rows. One broken line never stops the rest: it is a row that cannot be decoded."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import pyarrow.parquet

from c2c_lightning.data.readers.data_files import file_kind, is_saved_dataset, local_files
from c2c_lightning.data.readers.file_content import header_of
from c2c_lightning.data.readers.json_lines import FEATURES, ORIGIN, decode, pieces_of, read_pieces
from c2c_lightning.errors import C2CError, DataError

Table: TypeAlias = datasets.Dataset | datasets.IterableDataset


def load_rows(
    path: str,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    max_row_bytes: int = 2**20,
) -> Table:
    """Rows of local files or of a data set on the hub.

    Args:
        path: file, folder, pattern or hub name.
        split: which split, where there are several.
        subset: configuration on the hub, or of a folder with a data card.
        revision: commit, tag or branch on the hub.
        streaming: a stream instead of a table.
        max_row_bytes: larger lines of JSON files come without their content.

    Returns:
        Rows; those of JSON files are still text, for `json_lines.decode`.

    Raises:
        DataError: naming what is missing, empty or unreadable.
    """
    saved = Path(path).expanduser()
    if is_saved_dataset(saved):
        return _saved(saved, split, streaming)
    files = local_files(path, split, subset)
    if files is None:
        return _from_hub(path, split, subset, revision, streaming)
    if file_kind(files[0]) != "json":
        return _table_files(files, streaming)
    pieces = [piece for file in files for piece in pieces_of(file)]
    if next(read_pieces(pieces, max_row_bytes), None) is None:
        raise DataError(f"`{path}` has no rows, only blank lines.")
    gen_kwargs = {"pieces": pieces, "max_row_bytes": max_row_bytes}
    if streaming:
        return datasets.IterableDataset.from_generator(read_pieces, FEATURES, gen_kwargs)
    try:
        return datasets.Dataset.from_generator(read_pieces, FEATURES, gen_kwargs=gen_kwargs)
    except datasets.exceptions.DatasetGenerationError as problem:
        raise _data_error(f"`{path}` cannot be read", problem) from problem


def read_rows(path: str, **options: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The decoded rows of a path one after another, each with its origin, `FILE:LINE` or a row number.

    Args:
        path: as in `load_rows`.
        **options: as in `load_rows`; local files are best streamed.

    Raises:
        DataError: naming what is missing or unreadable, or the origin of a row that cannot be decoded.
    """
    rows = iter(load_rows(path, **options))
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except C2CError:
            raise
        except Exception as problem:  # of any reader below, in the middle of a file or of a download
            raise _data_error(f"`{path}` cannot be read after row {number - 1}", problem) from problem
        if row is None:
            return
        origin = str(row.get(ORIGIN) or f"{path}, row {number}")
        try:
            decoded = decode(row)
        except DataError as problem:
            raise DataError(f"{origin}: {problem}") from problem
        yield origin, decoded


def data_fingerprint(path: str, split: str = "train", subset: str | None = None) -> str | None:
    """A key of local data by names, sizes and times of change; None for a data set on the hub.

    Args:
        path: as in `load_rows`.
        split: as in `load_rows`.
        subset: as in `load_rows`.

    Raises:
        DataError: when the files are not there.
    """
    saved = Path(path).expanduser()
    files = sorted(saved.iterdir()) if is_saved_dataset(saved) else local_files(path, split, subset)
    if files is None:
        return None
    marks = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def stream_of(table: Table) -> datasets.IterableDataset:
    """A table or stream as a stream of the same rows in the same order."""
    if isinstance(table, datasets.IterableDataset):
        return table
    return table.to_iterable_dataset(num_shards=min(64, max(1, len(table))))


def _saved(path: Path, split: str, streaming: bool) -> Table:
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as problem:  # datasets and pyarrow raise errors of many classes
        raise _data_error(f"The saved data set `{path}` cannot be read", problem) from problem
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise DataError(f"`{path}` has no split `{split}`; it has {', '.join(table)}.")
        table = table[split]
    return stream_of(table) if streaming else table


def _table_files(files: list[Path], streaming: bool) -> Table:
    kind, names = file_kind(files[0]), [str(file) for file in files]
    for file in files if kind == "parquet" else []:
        try:
            pyarrow.parquet.read_metadata(file)
        except Exception as problem:  # pyarrow raises errors of many classes
            raise _data_error(f"`{file}` cannot be read as Parquet", problem) from problem
    options = _csv_options([header_of(file) for file in files]) if kind == "csv" else {}
    try:
        return datasets.load_dataset(kind, data_files=names, split="train", streaming=streaming, **options)
    except Exception as problem:  # datasets and pyarrow raise errors of many classes
        raise _data_error(f"{', '.join(names[:3])} cannot be read as {kind}", problem) from problem


def _csv_options(headers: list[list[str]]) -> dict[str, Any]:
    """Options of pandas by which all cells are text: by default `007` becomes 7, and `NA` nothing."""
    # pandas names columns without a name by their number.
    names = [name or f"Unnamed: {number}" for number, name in enumerate(headers[0])]
    features = datasets.Features({name: datasets.Value("string") for name in names})
    return {"features": features, "keep_default_na": False, "na_values": [""]}


def _from_hub(name: str, split: str, subset: str | None, revision: str | None, streaming: bool) -> Table:
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision, streaming=streaming)
    except Exception as problem:  # network, permission, split, format: all with messages of their own
        where = f"`{name}` is no file or folder here, and as a data set on the hub it cannot be loaded"
        raise _data_error(where, problem) from problem


def _data_error(what: str, problem: BaseException) -> DataError:
    """A message with the root of an exception; `datasets` wraps the useful one."""
    while problem.__cause__ is not None and not isinstance(problem, DataError):
        problem = problem.__cause__
    if isinstance(problem, DataError):
        return problem
    first_line = str(problem).splitlines()[0] if str(problem) else ""
    return DataError(f"{what}: {type(problem).__name__}: {first_line}")

"""Data files and hub data sets to rows. One broken line never stops the rest: it is a row that cannot be decoded."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
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
    """Rows of local files or of a data set on the hub; those of JSON files are still text, for `json_lines.decode`.

    `path` is a file, folder, pattern or hub name; `subset` a configuration on the hub, or of a folder with a data card.
    Larger lines than `max_row_bytes` come without their content.
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
    with _data_errors(f"`{path}` cannot be read"):
        return datasets.Dataset.from_generator(read_pieces, FEATURES, gen_kwargs=gen_kwargs)


def read_rows(path: str, **options: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The decoded rows of a path one after another, each with its origin, `FILE:LINE` or a row number.

    Options are those of `load_rows`; local files are best streamed.
    """
    rows = iter(load_rows(path, **options))
    for number in count(1):
        with _data_errors(f"`{path}` cannot be read after row {number - 1}"):
            row = next(rows, None)
        if row is None:
            return
        origin = str(row.get(ORIGIN) or f"{path}, row {number}")
        try:
            decoded = decode(row)
        except DataError as problem:
            raise DataError(f"{origin}: {problem}") from problem
        yield origin, decoded


def data_fingerprint(path: str, split: str = "train", subset: str | None = None) -> str | None:
    """A key of local data by names, sizes and times of change; None for a data set on the hub."""
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
    with _data_errors(f"The saved data set `{path}` cannot be read"):
        table = datasets.load_from_disk(str(path))
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise DataError(f"`{path}` has no split `{split}`; it has {', '.join(table)}.")
        table = table[split]
    return stream_of(table) if streaming else table


def _table_files(files: list[Path], streaming: bool) -> Table:
    kind, names = file_kind(files[0]), [str(file) for file in files]
    # `datasets` would not name the file that is damaged.
    for file in files if kind == "parquet" else []:
        with _data_errors(f"`{file}` cannot be read as Parquet"):
            pyarrow.parquet.read_metadata(file)
    options = _csv_options([header_of(file) for file in files]) if kind == "csv" else {}
    with _data_errors(f"{', '.join(names[:3])} cannot be read as {kind}"):
        return datasets.load_dataset(kind, data_files=names, split="train", streaming=streaming, **options)


def _csv_options(headers: list[list[str]]) -> dict[str, Any]:
    """Options of pandas by which all cells are text: by default `007` becomes 7, and `NA` nothing."""
    # pandas names columns without a name by their number.
    names = [name or f"Unnamed: {number}" for number, name in enumerate(headers[0])]
    features = datasets.Features({name: datasets.Value("string") for name in names})
    return {"features": features, "keep_default_na": False, "na_values": [""]}


def _from_hub(name: str, split: str, subset: str | None, revision: str | None, streaming: bool) -> Table:
    with _data_errors(f"`{name}` is no file or folder here, and as a data set on the hub it cannot be loaded"):
        return datasets.load_dataset(name, subset, split=split, revision=revision, streaming=streaming)


@contextmanager
def _data_errors(what: str) -> Iterator[None]:
    """Any error of the body as a `DataError` with the root of the exception; `datasets` wraps the useful one."""
    try:
        yield
    except Exception as problem:  # datasets and pyarrow raise errors of many classes
        root: BaseException = problem
        while root.__cause__ is not None and not isinstance(root, C2CError):
            root = root.__cause__
        if isinstance(root, C2CError):
            raise root from None
        first_line = str(root).splitlines()[0] if str(root) else ""
        raise DataError(f"{what}: {type(root).__name__}: {first_line}") from problem

"""Data files and hub data sets to rows. One broken line never stops the rest; it comes as a row that says so."""

import glob
import hashlib
import json
import logging
import re
from pathlib import Path

import datasets

from c2c_lightning.data.readers.json_lines import FEATURES, pieces_of, read_pieces
from c2c_lightning.errors import DataError

logger = logging.getLogger(__name__)

_JSON = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".ndjson")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_rows(
    path: str,
    split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    max_row_bytes: int = 2**20,
) -> datasets.Dataset | datasets.IterableDataset:
    """Rows of local files or of a data set on the hub.

    Args:
        path: file, folder, pattern or hub name.
        split: which split, where there are several.
        subset: configuration on the hub.
        revision: commit, tag or branch on the hub.
        streaming: a stream instead of a table.
        max_row_bytes: larger lines of JSON files come without their content.

    Returns:
        Rows; those of JSON files are still text, for `jsonlines.decode`.

    Raises:
        DataError: naming what is missing, empty or unreadable.
    """
    saved = Path(path)
    if is_saved_dataset(saved):
        return _saved(saved, split, streaming)
    files = local_files(path)
    if files is None:
        return _from_hub(path, split, subset, revision, streaming)
    if files[0].suffix == ".parquet":
        return _parquet(files, streaming)
    pieces = [piece for file in files for piece in pieces_of(file)]
    if next(read_pieces(pieces, max_row_bytes), None) is None:
        raise DataError(f"`{path}` has no rows, only blank lines.")
    gen_kwargs = {"pieces": pieces, "max_row_bytes": max_row_bytes}
    if streaming:
        return datasets.IterableDataset.from_generator(read_pieces, FEATURES, gen_kwargs)
    return datasets.Dataset.from_generator(read_pieces, FEATURES, gen_kwargs=gen_kwargs)


def data_fingerprint(path: str) -> str | None:
    """A key of local data by names, sizes and times of change; None for a data set on the hub.

    Args:
        path: as in `load_rows`.

    Returns:
        The key.

    Raises:
        DataError: when the files are not there.
    """
    saved = Path(path)
    files = sorted(saved.iterdir()) if is_saved_dataset(saved) else local_files(path)
    if files is None:
        return None
    marks = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()


def local_files(path: str) -> list[Path] | None:
    """The files that a path names, sorted; None when it can only be the name of a data set on the hub.

    Args:
        path: file, folder, pattern or hub name.

    Returns:
        One or more files of one kind that are not empty.

    Raises:
        DataError: when there are none, or of kinds that do not go together.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if _kind(file))
    else:
        files = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
    if not files:
        if _may_be_hub_name(path):
            return None
        raise DataError(
            f"There is no data at `{path}`. Give a .jsonl or .parquet file, a folder of them, or a hub name."
        )
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1 or "" in kinds:
        names = ", ".join(file.name for file in files[:3])
        raise DataError(
            f"`{path}` must be JSON (.jsonl, .json, .gz) or Parquet files, all of one kind, but holds {names}."
        )
    if not any(file.stat().st_size for file in files):
        raise DataError(f"`{path}` is empty. Was its download or export cut short?")
    return files


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _kind(file: Path) -> str:
    if file.name.endswith(_JSON):
        return "json"
    return "parquet" if file.suffix == ".parquet" else ""


def _may_be_hub_name(path: str) -> bool:
    looks_local = path.endswith((*_JSON, ".parquet")) or path.startswith((".", "/", "~"))
    return not looks_local and _HUB_NAME.fullmatch(path) is not None


def _saved(path: Path, split: str, streaming: bool) -> datasets.Dataset | datasets.IterableDataset:
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as problem:  # datasets and pyarrow raise what they like
        raise DataError(f"The saved data set `{path}` cannot be read: {problem}") from problem
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise DataError(f"`{path}` has no split `{split}`; it has {', '.join(table)}.")
        table = table[split]
    return stream_of(table) if streaming else table


def _parquet(files: list[Path], streaming: bool) -> datasets.Dataset | datasets.IterableDataset:
    names = [str(file) for file in files]
    try:
        return datasets.load_dataset("parquet", data_files=names, split="train", streaming=streaming)
    except Exception as problem:  # datasets and pyarrow raise what they like
        raise DataError(f"The Parquet files {', '.join(names[:3])} cannot be read: {_cause(problem)}") from problem


def _from_hub(
    name: str, split: str, subset: str | None, revision: str | None, streaming: bool
) -> datasets.Dataset | datasets.IterableDataset:
    try:
        return datasets.load_dataset(name, subset, split=split, revision=revision, streaming=streaming)
    except Exception as problem:  # network, permission, split, format: all with messages of their own
        raise DataError(
            f"`{name}` is no file or folder here, and as a data set on the hub it cannot be loaded: {_cause(problem)}"
        ) from problem


def _cause(problem: BaseException) -> str:
    """The message at the root of an exception; datasets wraps the useful one."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"


def stream_of(table: datasets.Dataset | datasets.IterableDataset) -> datasets.IterableDataset:
    """A table or stream as a stream.

    Args:
        table: rows.

    Returns:
        The same rows in the same order.
    """
    if isinstance(table, datasets.IterableDataset):
        return table
    return table.to_iterable_dataset(num_shards=min(64, max(1, len(table))))

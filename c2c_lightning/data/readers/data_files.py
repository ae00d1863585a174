"""Which local files a path names: a file, a folder or a pattern, by split as `datasets` resolves them."""

import glob
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets.data_files import FILES_TO_IGNORE, NON_WORDS_CHARS, SPLIT_KEYWORDS

from c2c_lightning.errors import DataError

logger = logging.getLogger(__name__)

_JSON = re.compile(r"\.(jsonl|json|ndjson)(\.(gz|bz2|zst|lz4))?$", re.IGNORECASE)
# Builders of `datasets` by file name ending.
_TABLES = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
# Folders of `save_to_disk` hold, next to the rows, JSON that describes them.
_NO_ROWS = frozenset({*FILES_TO_IGNORE, "state.json"})
_SHARD = re.compile(r"([\w.-]+?)-\d{5}-of-\d{5}")
_KEYWORDS = {
    str(split): re.compile(rf"(?:^|[{NON_WORDS_CHARS}/])(?:{'|'.join(words)})(?:[{NON_WORDS_CHARS}/]|$)", re.IGNORECASE)
    for split, words in SPLIT_KEYWORDS.items()
}
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

READABLE = "JSON (.jsonl, .json, .ndjson, also .gz, .bz2, .zst), Parquet, CSV or Arrow files"


def local_files(path: str, split: str = "train", subset: str | None = None) -> list[Path] | None:
    """The files that a path names, sorted; None when it can only be the name of a data set on the hub.

    A single file is taken as it is. A folder, or a pattern, whose files name several splits gives those of one split.
    `subset` names a configuration of a folder with a data card. The files are of one kind, and not all are empty.
    """
    if not path.strip():
        raise DataError("The path of the data is empty. Name a file, a folder, a pattern, or a data set on the hub.")
    place = Path(path).expanduser()
    if not is_local(path):
        return None
    files = _named_files(place, split, subset)
    if not files:
        raise DataError(f"There is no data at `{path}`. Give {READABLE}, a folder of them, or a hub name.")
    for file in files:
        _check_file(file)
    kinds = {file_kind(file) for file in files}
    if len(kinds) > 1 or "" in kinds:
        names = ", ".join(file.name for file in files[:3])
        raise DataError(f"`{path}` must be {READABLE}, all of one kind, but holds {names}.")
    if not any(file.stat().st_size for file in files):
        raise DataError(f"`{path}` is empty. Was its download or export cut short?")
    return files


def is_local(path: str) -> bool:
    """Whether a path names local data; False for what can only be a data set on the hub."""
    return os.path.lexists(Path(path).expanduser()) or glob.has_magic(path) or not _may_be_hub_name(path)


def file_kind(file: Path) -> str:
    """`json`, or the builder of `datasets` that reads the file; empty for a file of no known kind."""
    if file.name in _NO_ROWS:
        return ""
    return "json" if _JSON.search(file.name) else _TABLES.get(file.suffix.lower(), "")


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    # `Path.is_file` raises OSError for a name that no file can have, such as one of more than 255 characters.
    return os.path.isfile(path / "state.json") or os.path.isfile(path / "dataset_dict.json")


def _named_files(place: Path, split: str, subset: str | None) -> list[Path]:
    if place.is_dir():
        return _folder_files(place, split, subset)
    if os.path.lexists(place):
        return [place]
    found = [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
    return _of_split(str(place), [file for file in found if file.name not in _NO_ROWS], split)


def _folder_files(folder: Path, split: str, subset: str | None) -> list[Path]:
    known = sorted(file for file in folder.rglob("*") if file_kind(file) and not _is_hidden(file, folder))
    try:
        # `datasets` reads the data card of the folder, if there is one.
        config = datasets.load_dataset_builder(str(folder.resolve()), subset).config
    except FileNotFoundError:  # no file whose name `datasets` knows, such as `.JSONL`
        return _of_split(str(folder), known, split)
    except Exception as problem:  # a data card that does not fit, a subset that is missing, ...
        raise DataError(f"The folder `{folder}` cannot be read as a data set: {problem}") from problem
    by_split = {str(name): [Path(file) for file in files] for name, files in (config.data_files or {}).items()}
    used = {file.resolve() for files in by_split.values() for file in files}
    if unused := [str(file.relative_to(folder)) for file in known if file.resolve() not in used and not subset]:
        logger.warning("`%s`: files of no split are not read: %s", folder, ", ".join(unused[:5]))
    is_unnamed = not any(_split_of(str(file.relative_to(folder))) for file in known)
    if is_unnamed and list(by_split) == ["train"]:
        return sorted(by_split["train"])
    if not subset and not (folder / "README.md").exists() and _are_named_otherwise(folder, by_split):
        return _of_split(str(folder), known, split)  # in upper or camel case, which `datasets` does not know
    return sorted(_chosen(str(folder), by_split, split))


def _are_named_otherwise(folder: Path, by_split: dict[str, list[Path]]) -> bool:
    """Whether `datasets` takes files for training whose names say another split."""
    names = [os.path.relpath(file, folder.resolve()) for file in by_split.get("train", [])]
    return any(_split_of(name) in _KEYWORDS.keys() - {"train"} for name in names)


def _of_split(path: str, files: list[Path], split: str) -> list[Path]:
    """Those of some files that name a split; all of them when they name one or none."""
    base = os.path.commonpath([file.parent for file in files]) if files else ""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(os.path.relpath(file, base)), []).append(file)
    if len(by_split) < 2:
        return files
    if "" in by_split:
        names = ", ".join(file.name for file in by_split[""][:3])
        raise DataError(
            f"`{path}` has files of the splits {_listed(by_split)} next to {names}, whose split is not clear. "
            "Rename them, or give a pattern that leaves some out."
        )
    return _chosen(path, by_split, split)


def _chosen(path: str, by_split: dict[str, list[Path]], split: str) -> list[Path]:
    if split not in by_split:
        raise DataError(f"`{path}` has no split `{split}`; it has {_listed(by_split)}. Set `split` to one of them.")
    return by_split[split]


def _split_of(name: str) -> str:
    """The split that a file's path names, by the rules of `datasets`; empty for none."""
    shard = _SHARD.match(os.path.basename(name))
    # Also of names in camel case, such as `trainSet`, which `datasets` does not know.
    words = _CAMEL_CASE.sub("_", shard[1] if shard else name)
    return next((split for split, named in _KEYWORDS.items() if named.search(words)), shard[1] if shard else "")


def _listed(names: Sequence[str] | dict[str, list[Path]]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)


def _check_file(file: Path) -> None:
    if not file.exists():
        raise DataError(f"`{file}` is a link to `{os.path.realpath(file)}`, which does not exist.")
    if not file.is_file():
        raise DataError(f"`{file}` is no ordinary file (a pipe, a socket or a device). Copy the data to a file first.")
    if not os.access(file, os.R_OK):
        raise DataError(f"`{file}` may not be read by this user. Change its permissions.")


def _may_be_hub_name(path: str) -> bool:
    is_file_name = _JSON.search(path) or Path(path).suffix.lower() in _TABLES or path.startswith((".", "/", "~"))
    return not is_file_name and _HUB_NAME.fullmatch(path) is not None

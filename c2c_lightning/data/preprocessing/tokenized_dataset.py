"""Encoded rows as a table on disk, so that a second start reads no text."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from filelock import FileLock

from c2c_lightning.data.collate import UnsupervisedExample
from c2c_lightning.data.encode import EncodedExample, Encoder
from c2c_lightning.data.encode_sharers import EncodedPrompt, SharerEncoding
from c2c_lightning.data.preprocessing.row_encoder import Accepted, Rejected, RowEncoder
from c2c_lightning.data.row_lengths import Lengths
from c2c_lightning.data.sources.source import Source
from c2c_lightning.errors import DataError

logger = logging.getLogger(__name__)

# Part of the cache's key: raise it when the columns or their meaning change.
_VERSION = 1
_ROWS_AT_ONCE = 256
_ROWS_WORTH_A_PROCESS = 2000
_ROWS_WORTH_A_BAR = 10_000

_IDS = datasets.List(datasets.Value("int32"))
_MASK = datasets.List(datasets.Value("int8"))
_PLACES = {"position_ids": _IDS, "attention_mask": _MASK}
FEATURES = datasets.Features(
    {
        "receiver_ids": _IDS,
        "response_ids": _IDS,
        **_PLACES,
        # input_ids and source_index are null where the sharer reads the receiver's tokens one for one.
        "sharers": datasets.List({"input_ids": _IDS, "source_index": _IDS, **_PLACES}),
        "prompt_lengths": _IDS,
        "response_length": datasets.Value("int32"),
        "key": datasets.Value("int64"),
        "origin": datasets.Value("string"),
        "rejected": datasets.Value("string"),
        "why": datasets.Value("string"),
    }
)
"""Columns; `prompt_lengths` counts the receiver's tokens, then each sharer's. Rejected rows have no tokens."""


def cache_folder(given: str | None = None) -> Path:
    """The folder of encoded tables; default one in the cache of `datasets`."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "c2c_lightning" if given is None else Path(given).expanduser()


def encoded_table(source: Source, encoder: Encoder, cache_dir: Path, max_rows: int | None = None) -> datasets.Dataset:
    """All rows of a source as tokens, from the cache if there: the columns `FEATURES`, one row per row of the source.

    `cache_dir` has a folder for each table and is safe to delete.
    """
    key_parts = [_VERSION, source.fingerprint(), encoder.fingerprint, max_rows]
    key = hashlib.sha256(json.dumps(key_parts).encode()).hexdigest()[:24]
    folder = cache_dir / f"tokens-{key}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    # All processes of a run call this: the first one encodes, the others wait and read.
    with FileLock(cache_dir / f"tokens-{key}.lock"):
        if not (folder / "files.json").is_file():
            _encode_into(folder, RowEncoder(source, encoder), max_rows, key)
    files = json.loads((folder / "files.json").read_text())
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(folder / name)) for name in files])


def _encode_into(folder: Path, rows: RowEncoder, max_rows: int | None, key: str) -> None:
    """Encode into a temporary folder, which is renamed when it is complete."""
    table = rows.source.load()
    if not isinstance(table, datasets.Dataset):
        raise DataError(f"{rows.source.name} is a stream. Give it an attribute `streaming` that is True.")
    table = table if max_rows is None else table.select(range(min(max_rows, len(table))))
    if not len(table):
        raise DataError(f"{rows.source.name} has no rows.")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_proc = min(cpus, len(table) // _ROWS_WORTH_A_PROCESS)
    partial = folder.with_suffix(f".partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with _bar_shown(len(table) >= _ROWS_WORTH_A_BAR):
        table.map(
            _encode_columns,
            fn_kwargs={"encoder": rows},
            with_indices=True,
            batched=True,
            batch_size=_ROWS_AT_ONCE,
            remove_columns=table.column_names,
            features=FEATURES,
            num_proc=num_proc if num_proc > 1 else None,  # 1 would start one other process
            cache_file_name=str(partial / "tokens.arrow"),
            # Else `datasets` would pickle the encoder to hash it.
            new_fingerprint=key,
            desc=f"Encoding {rows.source.name}",
        )
    files = sorted(file.name for file in partial.glob("*.arrow"))
    (partial / "files.json").write_text(json.dumps(files))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


@contextmanager
def _bar_shown(is_long: bool) -> Iterator[None]:
    """Show the bar of `datasets` where it is worth it, even if the command line has turned such bars off."""
    is_off = datasets.are_progress_bars_disabled()
    if is_off and is_long:
        datasets.enable_progress_bars()
    try:
        yield
    finally:
        if is_off:
            datasets.disable_progress_bars()


def _encode_columns(columns: Mapping[str, list[Any]], numbers: list[int], encoder: RowEncoder) -> dict[str, list[Any]]:
    """`RowEncoder` in the columns that `Dataset.map` passes."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    packed = [pack(result) for result in encoder(rows, numbers[0])]
    return {name: [row[name] for row in packed] for name in FEATURES}


def pack(result: Accepted | Rejected) -> dict[str, Any]:
    """The columns of an encoded or rejected row."""
    columns: dict[str, Any] = {**dict.fromkeys(FEATURES), "origin": result.origin}
    if isinstance(result, Rejected):
        return {**columns, "rejected": result.kind, "why": result.why}
    prompt = result.example.prompt
    return {
        **columns,
        "receiver_ids": prompt.receiver_ids,
        "response_ids": result.example.response_ids,
        "position_ids": prompt.position_ids,
        "attention_mask": prompt.attention_mask,
        "sharers": [_pack_sharer(sharer, prompt.receiver_ids) for sharer in prompt.sharers],
        "prompt_lengths": [len(prompt.receiver_ids), *(len(sharer.input_ids) for sharer in prompt.sharers)],
        "response_length": len(result.example.response_ids),
        "key": result.key,
    }


def unpack(row: Mapping[str, Any]) -> EncodedExample:
    """The example of a row of the table, the inverse of `pack`."""
    ids = row["receiver_ids"]
    shared: dict[str, Any] = {"input_ids": ids, "source_index": _one_for_one(ids)}
    sharers = tuple(
        SharerEncoding(**{**sharer, **{name: ids for name, ids in shared.items() if sharer[name] is None}})
        for sharer in row["sharers"]
    )
    return EncodedExample(EncodedPrompt(ids, sharers, row["position_ids"], row["attention_mask"]), row["response_ids"])


def _pack_sharer(sharer: SharerEncoding, receiver_ids: list[int]) -> dict[str, list[int] | None]:
    columns = asdict(sharer)
    if sharer.input_ids == receiver_ids:
        columns["input_ids"] = None
        if sharer.source_index == _one_for_one(receiver_ids):
            columns["source_index"] = None
    return columns


def _one_for_one(ids: list[int]) -> list[int]:
    """The source index of a sharer with the receiver's tokens; the last one is not fused."""
    return [*range(len(ids) - 1), -1]


class TokenTable:
    """An encoded table as a torch data set of examples.

    Attributes:
        table: all columns, rejected rows too.
        is_rejected: (rows,) rows without tokens.
        keys: (rows,) of the prompts, see `Accepted.key`.
        lengths: of all rows; 0 where rejected.
    """

    COLUMNS = ("receiver_ids", "response_ids", "position_ids", "attention_mask", "sharers")

    def __init__(self, table: datasets.Dataset) -> None:
        self.table = table
        self._tokens = table.select_columns(list(self.COLUMNS)).with_format("arrow")
        columns = table.select_columns(["prompt_lengths", "response_length", "key"]).with_format("arrow")[:]
        responses = columns["response_length"].combine_chunks()
        self.is_rejected = np.asarray(responses.is_null())
        self.keys = columns["key"].combine_chunks().fill_null(0).to_numpy()
        prompts = columns["prompt_lengths"].combine_chunks().flatten().to_numpy().astype(np.int64)
        # The number of models is unknown in a table of rejected rows only.
        models = len(prompts) // max(1, int((~self.is_rejected).sum())) or 1
        widths = np.zeros((len(table), models), np.int64)
        widths[~self.is_rejected] = prompts.reshape(-1, models)
        self.lengths = Lengths(widths, responses.fill_null(0).to_numpy().astype(np.int64))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._tokens)

    def __getitem__(self, row: int) -> EncodedExample:
        """One example."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[EncodedExample]:
        """Several examples, in one read; `-1 - row` is the row without supervision."""
        examples = [unpack(row) for row in self._tokens[[max(row, -1 - row) for row in rows]].to_pylist()]
        return [
            example if row >= 0 else UnsupervisedExample(example.prompt, example.response_ids)
            for row, example in zip(rows, examples, strict=True)
        ]

"""Sources to encoded rows, split into training and validation, with counts of the rows that are left out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.preprocessing.data_report import IN_VALIDATION, TOO_LONG, SourceReport
from c2c_lightning.data.preprocessing.row_encoder import BAD_KINDS
from c2c_lightning.data.preprocessing.tokenized_dataset import TokenTable, encoded_table
from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows
from c2c_lightning.data.sources.mixture import Mixture
from c2c_lightning.data.sources.source import Source
from c2c_lightning.errors import DataError

logger = logging.getLogger(__name__)

KEY_RANGE = 2.0**63
"""Prompt keys are spread evenly from 0 up to this."""


@dataclass(frozen=True)
class Settings:
    """Settings of the data module that its parts share; see `InstructionDataModule` for those of the same name.

    Attributes:
        limits: of a batch.
        context_lengths: positions of the receiver and of each sharer, None where there is no limit; longer rows are
            dropped.
    """

    encoder: Encoder
    cache_dir: Path
    limits: BatchLimits
    max_length: int = 2048
    context_lengths: tuple[int | None, ...] = ()
    max_rows: int | None = None
    max_validation_rows: int | None = None
    validation_share: float = 0.0
    max_bad_share: float = 0.0
    num_workers: int = 0
    seed: int = 0

    def is_held_out(self, key: int) -> bool:
        """Whether the prompt of a key belongs to the held-out validation data."""
        return key < self.validation_share * KEY_RANGE

    def too_long(self, lengths: Lengths) -> dict[str, NDArray[np.bool_]]:
        """Which rows are too long, (rows,), by reason.

        A sharer's prompt counts with the response, which it reads in fusion mode `decode`.
        """
        totals = lengths.prompts + lengths.responses[:, None]  # (rows, models)
        reasons = {TOO_LONG: np.maximum(totals[:, 0], lengths.prompts.max(1)) > self.max_length}
        for number, limit in enumerate(self.context_lengths[: totals.shape[1]]):
            model = f"sharer {number}" if number else "the receiver"
            if limit is not None:
                reasons[f"longer than the {limit} positions of {model}"] = totals[:, number] > limit
        return reasons


@dataclass
class PreparedRows:
    """Encoded rows of one use: the table of all sources, and for each source the rows that are used and a report."""

    table: TokenTable
    parts: list[Rows]
    reports: list[SourceReport]

    @property
    def rows(self) -> Rows:
        """All rows that are used."""
        return np.concatenate(self.parts)

    def first(self, count: int | None) -> "PreparedRows":
        """At most `count` rows, those with the smallest keys."""
        keys = self.table.keys[self.rows]
        if count is None or len(keys) <= count:
            return self
        border = np.partition(keys, count - 1)[count - 1]
        return PreparedRows(self.table, [part[self.table.keys[part] <= border] for part in self.parts], self.reports)

    def leave_out(self, unwanted: NDArray[np.bool_]) -> list[int]:
        """Remove the rows that are True in `unwanted`, (rows of the table,); the result counts those of each part."""
        before = [len(part) for part in self.parts]
        self.parts = [part[~unwanted[part]] for part in self.parts]
        return [count - len(part) for count, part in zip(before, self.parts, strict=True)]


def sources_of(data: Source | Mixture | Sequence[Source]) -> list[Source]:
    """The sources of a `train` or `validation` setting."""
    if isinstance(data, Source):
        return [data]
    return list(data.sources if isinstance(data, Mixture) else data)


def prepare(sources: Sequence[Source], use: str, settings: Settings) -> PreparedRows:
    """Read, encode and filter sources for `train` or `validation`."""
    tables = [encoded_table(s, settings.encoder, settings.cache_dir, settings.max_rows) for s in sources]
    reports = [_rejections(source.name, use, table) for source, table in zip(sources, tables, strict=True)]
    for report in reports:
        report.check(settings.max_bad_share)
    table = TokenTable(datasets.concatenate_datasets(tables))
    borders = np.cumsum([0, *map(len, tables)])
    parts = [np.arange(start, end) for start, end in pairwise(borders)]
    prepared = PreparedRows(table, [part[~table.is_rejected[part]] for part in parts], reports)
    for reason, too_long in settings.too_long(table.lengths).items():
        for report, count in zip(reports, prepared.leave_out(too_long), strict=True):
            report.drop(reason, count)
    for report in reports:
        if not report.kept:
            raise DataError(
                f"No row of {report.name} is left: {report.rows:,} were read ({report.reasons}). `max_length` is "
                f"{settings.max_length} tokens."
            )
    return prepared


def hold_out(train: PreparedRows, share: float) -> PreparedRows | None:
    """Move validation rows out of the training data by the keys of their prompts; equal prompts stay together."""
    if not share:
        return None
    keys = train.table.keys
    # A very small data set may have no key below the border: then the smallest key is chosen.
    border = max(share * KEY_RANGE, float(keys[train.rows].min()))
    chosen = keys <= border
    parts = [part[chosen[part]] for part in train.parts]
    for report, count in zip(train.reports, train.leave_out(chosen), strict=True):
        report.held_out = count
    if not len(train.rows):
        raise DataError("All rows were held out for validation. Lower `validation_share` or give more training data.")
    return PreparedRows(train.table, parts, [])


def leave_out_questions(train: PreparedRows, validation: PreparedRows) -> None:
    """Remove training rows whose prompt is in the validation data."""
    is_known = np.isin(train.table.keys, validation.table.keys[validation.rows])
    for report, count in zip(train.reports, train.leave_out(is_known), strict=True):
        report.drop(IN_VALIDATION, count)
    if not len(train.rows):
        raise DataError("Every question of the training data is in the validation data too.")


def _rejections(name: str, use: str, table: datasets.Dataset) -> SourceReport:
    report = SourceReport(name, use, len(table))
    # In Arrow, without a Python object for each row.
    kinds = table.with_format("arrow").select_columns(["rejected"])[:]["rejected"]
    report.dropped.update(kinds.drop_null().to_pylist())
    bad = np.flatnonzero(np.asarray(pc.is_in(kinds, value_set=pa.array(BAD_KINDS))))
    for row in bad[:5].tolist():
        columns = table[row]
        report.note(columns["origin"], columns["why"])
    return report

"""Loaders over tables of encoded rows."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.loading.batch_sampler import BatchSampler, EpochRows
from c2c_lightning.data.loading.epoch_loader import EpochLoader, collate_for
from c2c_lightning.data.loading.mixture_sampling import MixedRows
from c2c_lightning.data.loading.resumable_loader import ResumableLoader
from c2c_lightning.data.loading.step_plan import Processes
from c2c_lightning.data.preprocessing.data_report import DataReport, SourceReport
from c2c_lightning.data.preprocessing.prepare import (
    PreparedRows,
    Settings,
    hold_out,
    leave_out_questions,
    prepare,
    sources_of,
)
from c2c_lightning.data.sources import Mixture, Source

Data = Source | Mixture | Sequence[Source]
"""One source, a mixture, or several sources of which every row is read."""

logger = logging.getLogger(__name__)


class Loaders(ABC):
    """Training and validation loaders over one set of data.

    Attributes:
        fingerprint: key of the training data and of its encoding.
    """

    fingerprint: str
    _settings: Settings
    _validation: PreparedRows | None

    @abstractmethod
    def train_loader(self, processes: Processes) -> ResumableLoader:
        """Training batches for one process of several."""

    @abstractmethod
    def report(self, seen: Sequence[SourceReport] = ()) -> DataReport:
        """Rows that were read, kept and dropped; `seen` are the counts of a stream so far."""

    def sample(self, count: int) -> TrainingBatch | None:
        """Training rows from all parts of the data, as one batch; None for data that can be read only once."""
        return None

    def validation_loader(self, processes: Processes) -> EpochLoader | None:
        """Validation batches in order of length, the same each time; None without validation data."""
        if self._validation is None:
            return None
        settings, table, rows = self._settings, self._validation.table, self._validation.rows
        # Validation has no optimizer steps, so its batches are not accumulated.
        sampler = BatchSampler(
            table.lengths,
            settings.limits,
            rank=processes.rank,
            world_size=processes.world_size,
            shuffle=False,
            epoch_rows=lambda _: rows,
        )
        # One worker is enough: the rows are few and nothing shuffles them.
        num_workers = min(settings.num_workers, 1)
        return EpochLoader(table, sampler, collate_for(settings.encoder), num_workers)


class TableLoaders(Loaders):
    """Training and validation loaders over tables of encoded rows; without validation data, rows are held out."""

    def __init__(self, train: Data, validation: Data | None, settings: Settings) -> None:
        self._settings = settings
        self._train = prepare(sources_of(train), "train", settings)
        rows = self._validation_rows(validation)
        self._validation = None if rows is None else rows.first(settings.max_validation_rows)
        self._epoch_rows = _epoch_rows(train, self._train, settings.seed)
        self.fingerprint = str(self._train.table.table._fingerprint)

    def train_loader(self, processes: Processes) -> EpochLoader:
        """Training batches for one process of several."""
        settings = self._settings
        sampler = BatchSampler(
            self._train.table.lengths, settings.limits, settings.seed, *processes, epoch_rows=self._epoch_rows
        )
        collate = collate_for(settings.encoder)
        return EpochLoader(self._train.table, sampler, collate, settings.num_workers)

    def sample(self, count: int) -> TrainingBatch:
        """See `Loaders.sample`."""
        rows = np.sort(self._epoch_rows(0))
        chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
        return collate_for(self._settings.encoder)(self._train.table.__getitems__(chosen.tolist()))

    def report(self, seen: Sequence[SourceReport] = ()) -> DataReport:
        """Rows that were read, kept and dropped, and the share of padding in an epoch."""
        lengths = self._train.table.lengths
        batches = [lengths.take(batch) for batch in self.train_loader(Processes()).batches.batches()]
        tokens = sum(batch.real_tokens for batch in batches)
        return DataReport(
            sources=self._train.reports + ([] if self._validation is None else self._validation.reports),
            train_rows=len(self._epoch_rows(0)),
            validation_rows=0 if self._validation is None else len(self._validation.rows),
            batches=len(batches),
            tokens=tokens,
            padding=1 - tokens / sum(batch.padded_tokens for batch in batches),
        )

    def _validation_rows(self, validation: Data | None) -> PreparedRows | None:
        if validation is None:
            held_out = hold_out(self._train, self._settings.validation_share)
            if held_out is not None and len(held_out.rows) < 2:
                logger.warning(
                    "one row is held out for validation: too few to measure with another row's cache "
                    "(validation loss with mismatched caches). Raise `data.validation_share`."
                )
            return held_out
        rows = prepare(sources_of(validation), "validation", replace(self._settings, max_rows=None))
        leave_out_questions(self._train, rows)
        return rows


def _epoch_rows(data: Data, prepared: PreparedRows, seed: int) -> EpochRows:
    """The rows of each epoch: all of them, or a mixture's share of each source."""
    if isinstance(data, Mixture):
        return MixedRows(prepared.parts, data.shares, data.until, seed)
    rows = prepared.rows
    return lambda _: rows

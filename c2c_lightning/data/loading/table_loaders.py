"""Loaders over tables that were encoded ahead."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from c2c_lightning.data.loading.batch_sampler import BatchSampler, EpochProgress, EpochRows
from c2c_lightning.data.loading.epoch_loader import EpochLoader, collate_for
from c2c_lightning.data.loading.mixture_sampling import MixedRows
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


@runtime_checkable  # tests check types at run time
class ResumableLoader(Protocol):
    """Batches whose place can be kept and found again."""

    on_new_length: Callable[[], None]

    def state(self, done: int, limit: int | float) -> dict[str, Any]:
        """The place after `done` batches of the trainer's epoch, which takes at most `limit`."""

    def resume(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on at the places of the processes of an earlier run."""

    def reports(self) -> list[SourceReport]:
        """What was read so far, if that is not known from the beginning."""

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""


class TableFeed:
    """Training and validation loaders over encoded tables.

    Args:
        train: where training rows come from.
        validation: where validation rows come from; None holds out a share of the training rows.
        how: the settings.

    Raises:
        DataError: when data is missing, too much of it is bad, or nothing is left.
    """

    def __init__(self, train: Data, validation: Data | None, how: Settings) -> None:
        self._how = how
        self._train = prepare(sources_of(train), "train", how)
        held_out = self._validation(validation)
        self._held_out = None if held_out is None else held_out.first(how.max_validation_rows)
        self._epoch_rows = _epoch_rows(train, self._train, how.seed)
        self.fingerprint = str(self._train.table.table._fingerprint)

    def train_loader(self, rank: int, world_size: int) -> EpochLoader:
        """Training batches for one process of several."""
        how, sampler = self._how, self._sampler(rank, world_size)
        return EpochLoader(self._train.table, sampler, collate_for(how.encoder), how.num_workers, how.pin_memory)

    def validation_loader(self, rank: int, world_size: int) -> EpochLoader | None:
        """Validation batches for one process of several, the same each time; None without validation data."""
        return None if self._held_out is None else evaluation_loader(self._held_out, self._how, rank, world_size)

    def report(self, seen: Sequence[SourceReport] = ()) -> DataReport:
        """What was read, kept and dropped, and how much of an epoch is padding.

        Args:
            seen: nothing; a stream's feed needs it.
        """
        sampler = self._sampler(0, 1)
        lengths = self._train.table.lengths
        batches = [lengths.take(batch) for batch in sampler.remaining(EpochProgress())]
        tokens = sum(batch.real_tokens for batch in batches)
        padded = sum(batch.padded_tokens for batch in batches)
        return DataReport(
            sources=self._train.reports + ([] if self._held_out is None else self._held_out.reports),
            train_rows=len(self._epoch_rows(0)),
            validation_rows=0 if self._held_out is None else len(self._held_out.rows),
            batches=len(batches),
            tokens=tokens,
            padding=1 - tokens / padded,
        )

    def _validation(self, validation: Data | None) -> PreparedRows | None:
        if validation is None:
            return hold_out(self._train, self._how.validation_share)
        held_out = prepare(sources_of(validation), "validation", replace(self._how, max_rows=None))
        leave_out_questions(self._train, held_out)
        return held_out

    def _sampler(self, rank: int, world_size: int) -> BatchSampler:
        how = self._how
        return BatchSampler(
            self._train.table.lengths, how.limits, how.seed, rank, world_size, epoch_rows=self._epoch_rows
        )


def evaluation_loader(prepared: PreparedRows, how: Settings, rank: int, world_size: int) -> EpochLoader:
    """Batches in order of length, the same each time, for one process of several."""
    rows = prepared.rows
    sampler = BatchSampler(
        prepared.table.lengths, how.limits, 0, rank, world_size, shuffle=False, epoch_rows=lambda _: rows
    )
    # One worker is enough: the rows are few and nothing shuffles them.
    num_workers = min(how.num_workers, 1)
    return EpochLoader(prepared.table, sampler, collate_for(how.encoder), num_workers, how.pin_memory)


def _epoch_rows(data: Data, prepared: PreparedRows, seed: int) -> EpochRows:
    """The rows of each epoch: all of them, or a mixture's share of each source."""
    if isinstance(data, Mixture):
        return MixedRows(prepared.parts, data.shares, data.until, seed)
    rows = prepared.rows
    return lambda _: rows

"""Loaders over streams: training data that is read as it is needed."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset

from c2c_lightning.data.loading.block_reader import Part
from c2c_lightning.data.loading.epoch_loader import EpochLoader
from c2c_lightning.data.loading.example_stream import ExampleStream
from c2c_lightning.data.loading.row_stream import RowStream
from c2c_lightning.data.loading.stream_loader import StreamLoader
from c2c_lightning.data.loading.table_loaders import Data, evaluation_loader
from c2c_lightning.data.preprocessing.data_report import DataReport, SourceReport
from c2c_lightning.data.preprocessing.prepare import PreparedRows, Settings, prepare, sources_of
from c2c_lightning.data.preprocessing.row_encoder import ReadRow, RowEncoder
from c2c_lightning.data.preprocessing.tokenized_dataset import FEATURES, TokenTable, pack
from c2c_lightning.data.readers.files import stream_of
from c2c_lightning.data.sources import Mixture, Source

logger = logging.getLogger(__name__)

# Validation rows of a stream if no number is set: enough for a loss with two digits.
_VALIDATION_ROWS = 512
# Looking for validation rows ends when so many times the expected rows were read.
_PATIENCE = 3


class StreamFeed:
    """Training loaders over endless streams, and a validation loader over a table made of their held-out rows.

    Args:
        train: where training rows come from; several sources without weights have equal shares.
        validation: where validation rows come from; None holds out a share of the training rows.
        how: the settings.
        block_rows: examples that a reader shuffles together.

    Raises:
        DataError: when data is missing.
    """

    def __init__(self, train: Data, validation: Data | None, how: Settings, block_rows: int) -> None:
        # With validation data of its own, nothing is held out of the training data.
        self._how = how if validation is None else replace(how, validation_share=0.0)
        self._block_rows = block_rows
        sources = sources_of(train)
        shares = train.shares if isinstance(train, Mixture) else [1 / len(sources)] * len(sources)
        self._parts = [
            Part(RowEncoder(source, how.encoder), stream_of(source.load()), share)
            for source, share in zip(sources, shares, strict=True)
        ]
        self._asked: Sequence[int] = ()
        self._held_out: PreparedRows | None = None
        if validation is not None:
            self._held_out = prepare(sources_of(validation), "validation", replace(how, max_rows=None))
            self._asked = sorted(set(self._held_out.table.keys[self._held_out.rows].tolist()))
        elif how.validation_share:
            self._held_out = self._collect_held_out()
        self.fingerprint = "-".join(source.fingerprint() for source in sources)

    def train_loader(self, rank: int, world_size: int) -> StreamLoader:
        """Training batches for one process of several."""
        stream = ExampleStream(self._parts, self._how, self._block_rows, rank, world_size, self._asked)
        return StreamLoader(stream)

    def validation_loader(self, rank: int, world_size: int) -> EpochLoader | None:
        """Validation batches for one process of several; None without validation data."""
        return None if self._held_out is None else evaluation_loader(self._held_out, self._how, rank, world_size)

    def report(self, seen: Sequence[SourceReport] = ()) -> DataReport:
        """What was read, kept and dropped.

        Args:
            seen: what training has read so far.
        """
        held_out = [] if self._held_out is None else self._held_out.reports
        rows = 0 if self._held_out is None else len(self._held_out.rows)
        return DataReport([*seen, *held_out], validation_rows=rows)

    def _collect_held_out(self) -> PreparedRows | None:
        """The first held-out rows of each part, as a table; training will pass them over."""
        wanted = self._how.max_validation_rows or _VALIDATION_ROWS
        packed = [
            pack(result)
            for part in self._parts
            for result in part.rows.encode(list(self._held_out_rows(part, max(1, int(part.share * wanted)))))
        ]
        if not packed:
            logger.warning("The stream's beginning has no held-out rows: there is no validation.")
            return None
        table = TokenTable(Dataset.from_list(packed, features=FEATURES))
        return PreparedRows(table, [np.flatnonzero(table.longest <= self._how.max_length)], [])

    def _held_out_rows(self, part: Part, wanted: int) -> Iterator[ReadRow]:
        stream = RowStream(part.source.name, part.table, max_rows=self._how.max_rows)
        patience = int(_PATIENCE * wanted / self._how.validation_share)
        while wanted and patience and not stream.round:
            ((number, row),) = stream.take(1)
            read = part.rows.read(row, number)
            patience -= 1
            if isinstance(read, ReadRow) and self._how.is_held_out(read.key) and not stream.round:
                wanted -= 1
                yield read


def is_stream(source: Source) -> bool:
    """Whether a source is read as it is needed."""
    return bool(getattr(source, "streaming", False))

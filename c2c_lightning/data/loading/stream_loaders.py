"""Loaders over streams: training data that is read as it is needed."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset

from c2c_lightning.data.loading.block_reader import StreamPart
from c2c_lightning.data.loading.row_stream import RowStream
from c2c_lightning.data.loading.step_plan import Processes
from c2c_lightning.data.loading.stream_loader import BatchStream, StreamLoader
from c2c_lightning.data.loading.table_loaders import Data, Loaders
from c2c_lightning.data.preprocessing.data_report import DataReport, SourceReport
from c2c_lightning.data.preprocessing.prepare import PreparedRows, Settings, prepare, sources_of
from c2c_lightning.data.preprocessing.row_encoder import ParsedRow, RowEncoder
from c2c_lightning.data.preprocessing.tokenized_dataset import FEATURES, TokenTable, pack
from c2c_lightning.data.readers.files import stream_of
from c2c_lightning.data.sources import Mixture, Source

logger = logging.getLogger(__name__)

# Validation rows of a stream if no number is set: enough for a loss with two digits.
_VALIDATION_ROWS = 512
# The search for validation rows ends after so many times the expected number of rows.
_PATIENCE = 3


class StreamLoaders(Loaders):
    """Training loaders over endless streams, and a validation loader over a table of their held-out rows.

    Several sources without weights have equal shares. `block_rows` examples are shuffled together.
    """

    def __init__(self, train: Data, validation: Data | None, settings: Settings, block_rows: int) -> None:
        # With separate validation data, nothing is held out of the training data.
        self._settings = settings if validation is None else replace(settings, validation_share=0.0)
        self._block_rows = block_rows
        sources = sources_of(train)
        shares = train.shares if isinstance(train, Mixture) else [1 / len(sources)] * len(sources)
        self._parts = [
            StreamPart(RowEncoder(source, settings.encoder), stream_of(source.load()), share)
            for source, share in zip(sources, shares, strict=True)
        ]
        self._validation_keys: Sequence[int] = ()
        self._validation: PreparedRows | None = None
        if validation is not None:
            self._validation = prepare(sources_of(validation), "validation", replace(settings, max_rows=None))
            self._validation_keys = sorted(set(self._validation.table.keys[self._validation.rows].tolist()))
        elif settings.validation_share:
            self._validation = self._collect_held_out()
        self.fingerprint = "-".join(source.fingerprint() for source in sources)

    def train_loader(self, processes: Processes) -> StreamLoader:
        """Training batches for one process of several."""
        stream = BatchStream(self._parts, self._settings, self._block_rows, processes, self._validation_keys)
        return StreamLoader(stream)

    def report(self, seen: Sequence[SourceReport] = ()) -> DataReport:
        """Rows that were read, kept and dropped so far."""
        validation = [] if self._validation is None else self._validation.reports
        rows = 0 if self._validation is None else len(self._validation.rows)
        return DataReport([*seen, *validation], validation_rows=rows)

    def _collect_held_out(self) -> PreparedRows | None:
        """The first held-out rows of each part, as a table; training leaves them out."""
        wanted = self._settings.max_validation_rows or _VALIDATION_ROWS
        packed = [
            pack(result)
            for part in self._parts
            for result in part.rows.encode(list(self._held_out_rows(part, max(1, int(part.share * wanted)))))
        ]
        if packed:
            table = TokenTable(Dataset.from_list(packed, features=FEATURES))
            prepared = PreparedRows(table, [np.flatnonzero(~table.is_rejected)], [])
            for too_long in self._settings.too_long(table.lengths).values():
                prepared.leave_out(too_long)
            if len(prepared.rows):
                return prepared
        logger.warning("The beginning of the stream has no held-out rows that fit: there is no validation.")
        return None

    def _held_out_rows(self, part: StreamPart, wanted: int) -> Iterator[ParsedRow]:
        stream = RowStream(part.name, part.table, self._settings.max_rows)
        patience = int(_PATIENCE * wanted / self._settings.validation_share)
        while wanted and patience and not stream.round:
            ((number, row),) = stream.take(1)
            parsed = part.rows.parse(row, number)
            patience -= 1
            if isinstance(parsed, ParsedRow) and self._settings.is_held_out(parsed.key) and not stream.round:
                wanted -= 1
                yield parsed


def is_stream(source: Source) -> bool:
    """Whether the rows of a source are read as they are needed."""
    return bool(getattr(source, "streaming", False))

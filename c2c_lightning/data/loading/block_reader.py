"""Blocks of examples off several streams, with a count of everything that was left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import IterableDataset

from c2c_lightning.data.encode import EncodedExample
from c2c_lightning.data.loading.row_stream import Place, RowStream
from c2c_lightning.data.preprocessing.data_report import IN_VALIDATION, TOO_LONG, SourceReport
from c2c_lightning.data.preprocessing.prepare import Settings
from c2c_lightning.data.preprocessing.row_encoder import Accepted, ReadRow, Rejected, RowEncoder
from c2c_lightning.data.row_lengths import Lengths
from c2c_lightning.data.sources import Source
from c2c_lightning.errors import DataError

_ROWS_AT_ONCE = 256
# Before so many rows, a share of bad ones says little.
_ROWS_TO_JUDGE = 1000


@dataclass
class Part:
    """One source of a stream.

    Attributes:
        rows: reads and encodes.
        table: all its rows.
        share: of the examples in a block.
    """

    rows: RowEncoder
    table: IterableDataset
    share: float

    @property
    def source(self) -> Source:
        """Where rows come from."""
        return self.rows.source


class BlockReader:
    """Reads blocks of examples off several parts, counting what is dropped.

    Args:
        parts: where rows come from.
        how: the settings.
        block_rows: examples per block.
        asked: sorted keys of questions that are validation data.
        reader: which reader this is.
        readers: how many there are.
        place: where to go on.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        how: Settings,
        block_rows: int,
        asked: Sequence[int],
        reader: int,
        readers: int,
        place: Place,
    ) -> None:
        self._parts, self._how, self._block_rows = parts, how, block_rows
        self._asked = frozenset(asked)
        places = place.get("parts") or [None] * len(parts)
        self._streams = [
            RowStream(part.source.name, part.table, reader, readers, how.max_rows, where)
            for part, where in zip(parts, places, strict=True)
        ]
        reports = place.get("reports") or [{"name": part.source.name, "use": "train"} for part in parts]
        self.reports = [SourceReport.from_dict(report) for report in reports]

    def place(self) -> Place:
        """Where the next block begins."""
        return {
            "parts": [stream.place() for stream in self._streams],
            "reports": [report.to_dict() for report in self.reports],
        }

    def read(self, number: int) -> list[EncodedExample]:
        """The examples of a block.

        Args:
            number: which block, from 0; shares are exact over many blocks.
        """
        examples: list[EncodedExample] = []
        for part, stream, report in zip(self._parts, self._streams, self.reports, strict=True):
            count = int(part.share * (number + 1) * self._block_rows) - int(part.share * number * self._block_rows)
            examples += self._read_part(part, stream, report, count)
        return examples

    def _read_part(self, part: Part, stream: RowStream, report: SourceReport, count: int) -> list[EncodedExample]:
        examples: list[EncodedExample] = []
        began, kept = stream.round, report.kept
        while len(examples) < count:
            taken = stream.take(min(_ROWS_AT_ONCE, count - len(examples)))
            read = [part.rows.read(row, number) for number, row in taken]
            report.rows += len(read)
            wanted = [row for row in read if not self._is_refused(row, report) and isinstance(row, ReadRow)]
            results = [row for row in part.rows.encode(wanted) if not self._is_refused(row, report)]
            examples += [row.example for row in results if isinstance(row, Accepted)]
            if report.rows >= _ROWS_TO_JUDGE:
                report.check(self._how.max_bad_share)
            if stream.round > began + 1 and report.kept == kept:
                report.check(self._how.max_bad_share)
                raise DataError(f"No row of {part.source.name} can be used: {dict(report.dropped)}.")
        return examples

    def _is_refused(self, row: ReadRow | Rejected | Accepted, report: SourceReport) -> bool:
        """Whether a row is no training example; if so, it is counted."""
        if isinstance(row, Rejected):
            report.drop(row.kind, 1)
            report.note(row.origin, row.why)
            return True
        if isinstance(row, Accepted):
            is_long = longest_of(row.example) > self._how.max_length
            report.drop(TOO_LONG, int(is_long))
            return is_long
        if self._how.is_held_out(row.key):
            report.held_out += 1
            return True
        is_asked = row.key in self._asked
        report.drop(IN_VALIDATION, int(is_asked))
        return is_asked


def lengths_of(examples: Sequence[EncodedExample]) -> Lengths:
    """How long examples are."""
    prompts = [[len(e.prompt.receiver_ids), *(len(s.input_ids) for s in e.prompt.sharers)] for e in examples]
    return Lengths(np.array(prompts, np.int64), np.array([len(e.response_ids) for e in examples], np.int64))


def longest_of(example: EncodedExample) -> int:
    """Tokens of the model that reads most of an example."""
    receiver = len(example.prompt.receiver_ids) + len(example.response_ids)
    return max(receiver, *(len(sharer.input_ids) for sharer in example.prompt.sharers), 0)

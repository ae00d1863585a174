"""Blocks of examples from several streams, with a count of all rows that are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from datasets import IterableDataset

from c2c_lightning.data.encode import EncodedExample
from c2c_lightning.data.loading.row_stream import Position, RowStream
from c2c_lightning.data.preprocessing.data_report import IN_VALIDATION, SourceReport
from c2c_lightning.data.preprocessing.prepare import Settings
from c2c_lightning.data.preprocessing.row_encoder import Accepted, ParsedRow, Rejected, RowEncoder
from c2c_lightning.data.row_lengths import Lengths
from c2c_lightning.errors import DataError

_ROWS_AT_ONCE = 256
# With fewer rows, the share of bad ones says little.
_ROWS_TO_JUDGE = 1000


@dataclass
class StreamPart:
    """One source of a stream, and its share of the examples in a block."""

    rows: RowEncoder
    table: IterableDataset
    share: float

    @property
    def name(self) -> str:
        """The source's name."""
        return self.rows.source.name


class BlockReader:
    """Reads blocks of examples from several parts and counts the rows that are dropped.

    Rows whose prompts are in the validation data are dropped. Reading starts at a position, default at the beginning.
    """

    def __init__(
        self,
        parts: Sequence[StreamPart],
        settings: Settings,
        block_rows: int,
        validation_keys: Sequence[int],
        position: Position,
    ) -> None:
        self._parts, self._settings, self._block_rows = parts, settings, block_rows
        self._validation_keys = frozenset(validation_keys)
        positions = position.get("parts") or [None] * len(parts)
        self._streams = [
            RowStream(part.name, part.table, settings.max_rows, where)
            for part, where in zip(parts, positions, strict=True)
        ]
        reports = position.get("reports") or [{"name": part.name, "use": "train"} for part in parts]
        self.reports = [SourceReport.from_dict(report) for report in reports]

    def position(self) -> Position:
        """The beginning of the next block."""
        return {
            "parts": [stream.position() for stream in self._streams],
            "reports": [report.to_dict() for report in self.reports],
        }

    def read(self, number: int) -> list[EncodedExample]:
        """The examples of a block, counted from 0; shares are exact over many blocks."""
        examples: list[EncodedExample] = []
        counts = zip(self._counts(number), self._counts(number + 1), strict=True)
        for place, (before, after) in enumerate(counts):
            examples += self._read_part(self._parts[place], self._streams[place], self.reports[place], after - before)
        return examples

    def _counts(self, blocks: int) -> list[int]:
        """Examples of each part in so many blocks; together exactly as many as the blocks have."""
        # Differences of rounded sums, so that rounding errors do not add up.
        edges = [0.0, *accumulate(part.share for part in self._parts)]
        return [
            round(end * blocks * self._block_rows) - round(start * blocks * self._block_rows)
            for start, end in pairwise(edges)
        ]

    def _read_part(self, part: StreamPart, stream: RowStream, report: SourceReport, count: int) -> list[EncodedExample]:
        examples: list[EncodedExample] = []
        first_round, kept = stream.round, report.kept
        while len(examples) < count:
            taken = stream.take(min(_ROWS_AT_ONCE, count - len(examples)))
            parsed = [part.rows.parse(row, number) for number, row in taken]
            report.rows += len(parsed)
            wanted = [row for row in parsed if isinstance(row, ParsedRow) and not self._is_left_out(row, report)]
            results = [*(row for row in parsed if isinstance(row, Rejected)), *part.rows.encode(wanted)]
            examples += [row.example for row in results if self._is_accepted(row, report) and isinstance(row, Accepted)]
            if report.rows >= _ROWS_TO_JUDGE:
                report.check(self._settings.max_bad_share)
            # A source of which no row can be used would be read forever.
            if stream.round > first_round + 1 and report.kept == kept:
                report.check(self._settings.max_bad_share)
                raise DataError(f"No row of {part.name} can be used: {dict(report.dropped)}.")
        return examples

    def _is_left_out(self, row: ParsedRow, report: SourceReport) -> bool:
        """Whether a row is validation data; if so, it is counted."""
        if self._settings.is_held_out(row.key):
            report.held_out += 1
            return True
        is_known = row.key in self._validation_keys
        report.drop(IN_VALIDATION, int(is_known))
        return is_known

    def _is_accepted(self, row: Accepted | Rejected, report: SourceReport) -> bool:
        """Whether a row is a training example; if not, it is counted."""
        if isinstance(row, Rejected):
            report.drop(row.kind, 1)
            report.note(row.origin, row.why)
            return False
        reason = next(
            (name for name, rows in self._settings.too_long(lengths_of([row.example])).items() if rows[0]), ""
        )
        if reason:
            report.drop(reason, 1)
        return not reason


def lengths_of(examples: Sequence[EncodedExample]) -> Lengths:
    """Numbers of tokens of some examples."""
    prompts = [[len(e.prompt.receiver_ids), *(len(s.input_ids) for s in e.prompt.sharers)] for e in examples]
    return Lengths(np.array(prompts, np.int64), np.array([len(e.response_ids) for e in examples], np.int64))

"""Counts of rows that were read, kept and dropped, by reason: nothing is dropped silently."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from c2c_lightning.data.preprocessing.row_encoder import BAD_KINDS
from c2c_lightning.errors import DataError

TOO_LONG = "longer than max_length"
IN_VALIDATION = "question is in the validation data"

_SHOWN = 5


@dataclass
class SourceReport:
    """The rows of one source for one use: `train` or `validation`.

    Counts are of rows that were read, dropped (by reason) and held out of the training data; `examples` has the first
    bad rows, as `FILE:LINE: why`.
    """

    name: str
    use: str
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    held_out: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Rows that are used."""
        return self.rows - self.dropped.total() - self.held_out

    @property
    def bad(self) -> int:
        """Rows that could not be read."""
        return sum(self.dropped[kind] for kind in BAD_KINDS)

    @property
    def reasons(self) -> str:
        """The dropped rows by reason, in words."""
        return ", ".join(f"{reason}: {count:,}" for reason, count in self.dropped.most_common())

    def drop(self, reason: str, count: int) -> None:
        """Count rows that are not used."""
        if count:
            self.dropped[reason] += count

    def note(self, origin: str, why: str) -> None:
        """Keep the origin of a bad row, if it is one of the first."""
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{origin}: {why}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints, logs and model cards."""
        return {**asdict(self), "dropped": dict(self.dropped)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report of a `to_dict`."""
        return cls(
            **{**values, "dropped": Counter(values.get("dropped", {})), "examples": [*values.get("examples", [])]}
        )

    def check(self, max_bad_share: float) -> None:
        """Refuse a larger fraction of bad rows than `max_bad_share`; the message has the first ones."""
        if self.bad <= max_bad_share * self.rows:
            return
        lines = "\n  ".join(self.examples)
        raise DataError(
            f"{self.bad:,} of {self.rows:,} rows of {self.name} cannot be used ({self.reasons}), and "
            f"`max_bad_share` allows {max_bad_share:.2%}. The first ones:\n  {lines}\n"
            "Mend them, or raise `max_bad_share`."
        )


@dataclass
class DataReport:
    """The counts of all sources of a run.

    Rows and batches are those of an epoch over all processes, tokens those of all models without padding; all are None
    for a stream. `padding` is the fraction of the tokens in batches that are padding.
    """

    sources: list[SourceReport] = field(default_factory=list)
    train_rows: int | None = None
    validation_rows: int = 0
    batches: int | None = None
    tokens: int | None = None
    padding: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints, logs and model cards."""
        return {**asdict(self), "sources": [source.to_dict() for source in self.sources]}

    def to_text(self) -> str:
        """One line; after it a few for each source of which rows were left out."""
        if self.train_rows is None:
            train = "a stream"
        else:
            padding = "" if self.padding is None else f", {self.padding:.1%} padding"
            train = f"{self.train_rows:,} rows in {self.batches:,} batches ({self.tokens:,} tokens{padding})"
        reduced = [source for source in self.sources if source.kept < source.rows]
        lines = [line for source in reduced for line in _source_lines(source)]
        return "\n".join([f"{train}, validation {self.validation_rows:,} rows", *lines])


def _source_lines(source: SourceReport) -> Iterable[str]:
    yield f"  {source.use} {source.name}: {source.rows:,} rows read, {source.kept:,} kept"
    if source.held_out:
        yield f"    held out for validation: {source.held_out:,}"
    for reason, count in source.dropped.most_common():
        yield f"    dropped, {reason}: {count:,}"
    for example in source.examples:
        yield f"      {example}"

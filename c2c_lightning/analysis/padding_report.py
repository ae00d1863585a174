"""Padding of batches by batching strategy."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from c2c_lightning.data.loading.batch_sampler import BatchSampler
from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows

#: The paper's seed (A.3.5).
_SEED = 42


@dataclass(frozen=True)
class PaddingCounts:
    """One batching strategy on the same rows: its batches, and the tokens of all models without and with padding."""

    name: str
    batches: int
    tokens: int
    padded_tokens: int

    @property
    def share(self) -> float:
        """Proportion of padding."""
        return 1 - self.tokens / self.padded_tokens


@dataclass(frozen=True)
class PaddingReport:
    """Batching strategies on the rows of one epoch."""

    rows: int
    ways: tuple[PaddingCounts, ...]

    def save(self, path: Path) -> Path:
        """Write the report as JSON."""
        numbers = {"rows": self.rows, "ways": [{**asdict(way), "share": way.share} for way in self.ways]}
        path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        return path

    def to_text(self) -> str:
        """The report as text."""
        lines = [f"{self.rows:,} rows"]
        lines += [f"{way.share:6.1%} padding  {way.batches:,} batches  {way.name}" for way in self.ways]
        return "\n".join(lines)


def padding_report(lengths: Lengths, batch_size: int = 4, max_tokens_per_batch: int | None = None) -> PaddingReport:
    """Padding of batches in random order (released code) and of batches by length (this package).

    Args:
        lengths: of the rows of an epoch, in tokens.
        batch_size: rows of a batch (paper A.3.5: 4).
        max_tokens_per_batch: if set, also batches by length with this budget, padding included.
    """
    shuffled = np.random.default_rng(_SEED).permutation(len(lengths))
    random_order = [shuffled[start : start + batch_size] for start in range(0, len(shuffled), batch_size)]
    ways = [_counted(f"random order, {batch_size} rows, as released", lengths, random_order, _whole_rows)]
    limits = [(f"by length, {batch_size} rows", BatchLimits(batch_size))]
    if max_tokens_per_batch is not None:
        limits.append((f"by length, at most {max_tokens_per_batch:,} tokens", BatchLimits(None, max_tokens_per_batch)))
    for name, limit in limits:
        batches = BatchSampler(lengths, limit, _SEED).batches()
        ways.append(_counted(name, lengths, batches, lambda batch: batch.padded_tokens))
    return PaddingReport(len(lengths), tuple(ways))


def _whole_rows(batch: Lengths) -> int:
    """Tokens with each model's rows padded to its longest one; the receiver's include the response."""
    # As the released collator pads: prompt and response of a row are one sequence.
    receiver = (batch.prompts[:, 0] + batch.responses).max()
    return len(batch) * int(receiver + batch.prompts[:, 1:].max(0).sum())


def _counted(name: str, lengths: Lengths, batches: Iterable[Rows], padded: Callable[[Lengths], int]) -> PaddingCounts:
    taken = [lengths.take(batch) for batch in batches]
    return PaddingCounts(name, len(taken), sum(b.real_tokens for b in taken), sum(map(padded, taken)))

"""How much of what the models compute is padding, depending on which rows share a batch."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from c2c_lightning.data.loading.batch_sampler import BatchSampler
from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows


@dataclass(frozen=True)
class PaddingCounts:
    """One way to make batches of the same rows.

    Attributes:
        name: which way.
        batches: how many.
        tokens: tokens of all models, without padding.
        padded_tokens: with padding.
    """

    name: str
    batches: int
    tokens: int
    padded_tokens: int

    @property
    def share(self) -> float:
        """Share of the padded tokens that is padding."""
        return 1 - self.tokens / self.padded_tokens


@dataclass(frozen=True)
class PaddingReport:
    """Ways to make batches.

    Attributes:
        rows: rows of an epoch.
        ways: the counts of each way.
    """

    rows: int
    ways: tuple[PaddingCounts, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"rows": self.rows, "ways": [{**asdict(way), "share": way.share} for way in self.ways]}

    def save(self, path: Path) -> Path:
        """Write `to_dict` as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return path

    def to_text(self) -> str:
        """Lines to read."""
        lines = [f"{self.rows:,} rows"]
        lines += [f"{way.share:6.1%} padding  {way.batches:,} batches  {way.name}" for way in self.ways]
        return "\n".join(lines)


def padding_report(
    lengths: Lengths, batch_size: int = 4, max_tokens_per_batch: int | None = None, seed: int = 42
) -> PaddingReport:
    """Padding of batches in random order, as released, and of batches by length, as in training here.

    Args:
        lengths: of the rows of an epoch, in tokens.
        batch_size: rows of a batch (paper A.3.5: 4).
        max_tokens_per_batch: if set, batches by length with this budget too, padding included.
        seed: of the orders.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    random_order = [shuffled[start : start + batch_size] for start in range(0, len(shuffled), batch_size)]
    ways = [_counted(f"random order, {batch_size} rows, as released", lengths, random_order, _whole_rows)]
    limits = [(f"by length, {batch_size} rows", BatchLimits(batch_size))]
    if max_tokens_per_batch is not None:
        limits.append((f"by length, at most {max_tokens_per_batch:,} tokens", BatchLimits(None, max_tokens_per_batch)))
    for name, limit in limits:
        batches = BatchSampler(lengths, limit, seed).batches()
        ways.append(_counted(name, lengths, batches, lambda batch: batch.padded_tokens))
    return PaddingReport(len(lengths), tuple(ways))


def _whole_rows(batch: Lengths) -> int:
    """Each model's rows padded to its longest; the receiver's hold the response too."""
    receiver = (batch.prompts[:, 0] + batch.responses).max()
    return len(batch) * int(receiver + batch.prompts[:, 1:].max(0).sum())


def _counted(name: str, lengths: Lengths, batches: Iterable[Rows], padded: Callable[[Lengths], int]) -> PaddingCounts:
    taken = [lengths.take(batch) for batch in batches]
    return PaddingCounts(name, len(taken), sum(b.real_tokens for b in taken), sum(map(padded, taken)))

"""Effective rank of caches (paper, Eq. 6-8, table 2 and Fig. 12)."""

from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.analysis.fused_entries import FusedEntries, TokenEntries

CACHES = ("sharer", "receiver", "fused")


def effective_rank(matrix: Float[Tensor, "tokens width"]) -> float:
    """Exponential of the entropy of the normalised singular values: between 1 and the smaller side of the matrix.

    Example:
        >>> effective_rank(torch.eye(5))
        5.0
    """
    singular = torch.linalg.svdvals(matrix.double())
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return round(float(torch.exp(-(shares * shares.log()).sum())), 6)


@dataclass(frozen=True)
class RankReport:
    """Effective ranks, by cache (`sharer`, `receiver`, `fused`) and `keys` or `values`, of each fused receiver layer.

    Attributes:
        layers: the receiver layers; the sharer's ranks are those of the layers that they are fused with.
        tokens: tokens of each sample.
        ranks: mean over samples, by cache, part and layer.
        spread: standard deviation over samples of the mean over layers; empty for a single sample.
        bound: largest possible rank, by cache and part.
    """

    layers: list[int]
    tokens: int
    ranks: dict[str, dict[str, list[float]]]
    spread: dict[str, dict[str, float]]
    bound: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """Plain data, with means over layers."""
        means = {cache: {part: mean(values) for part, values in parts.items()} for cache, parts in self.ranks.items()}
        return {"version": 1, **vars(self), "mean": means}


def rank_report(entries: FusedEntries, samples: int = 1) -> RankReport:
    """The effective ranks of caches over samples of equal size, disjoint and in order."""
    tokens = entries.num_tokens // samples
    found = [_ranks(entries.part(n * tokens, (n + 1) * tokens)) for n in range(samples)]
    parts = [(cache, part) for cache in CACHES for part in ("keys", "values")]
    ranks: dict[str, dict[str, list[float]]] = {cache: {} for cache in CACHES}
    spread: dict[str, dict[str, float]] = {cache: {} for cache in CACHES if samples > 1}
    bound: dict[str, dict[str, int]] = {cache: {} for cache in CACHES}
    for cache, part in parts:
        by_sample = [sample[cache, part] for sample in found]
        ranks[cache][part] = [mean(values) for values in zip(*by_sample, strict=True)]
        bound[cache][part] = min(tokens, getattr(getattr(entries, cache), part)[0].shape[1])
        if samples > 1:
            spread[cache][part] = stdev(mean(values) for values in by_sample)
    return RankReport(entries.layers, tokens, ranks, spread, bound)


def _ranks(entries: FusedEntries) -> dict[tuple[str, str], list[float]]:
    """Ranks of each layer, by cache and part."""
    caches: dict[str, TokenEntries] = {name: getattr(entries, name) for name in CACHES}
    return {
        (name, part): [effective_rank(matrix) for matrix in matrices]
        for name, cache in caches.items()
        for part, matrices in (("keys", cache.keys), ("values", cache.values))
    }

"""Gates and mean head weights per layer and head over a data set (paper, A.4.2)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.analysis.statistics import bootstrap_interval
from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.model.c2c import C2CModel

PARTS = ("keys", "values")
_Place = tuple[int, str, int]


@dataclass(frozen=True)
class GateReport:
    """Gates and weights of one data set.

    Attributes:
        tokens: fused tokens that the weights are the mean of.
        logits: gate logits (sharers, 2 for keys and values, receiver layers), NaN without a gate; open above 0.
        weights: mean weight of each head, (heads,), by sharer, part, receiver layer; empty for kinds without weights.
        intervals: 95 % interval of the mean weight over heads, bootstrapped over batches of prompts; NaN for one batch.
    """

    tokens: int
    logits: Float[Tensor, "sharers 2 layers"]
    weights: dict[_Place, Float[Tensor, " heads"]]
    intervals: dict[_Place, tuple[float, float]]

    def effective(self, sharer: int, part: str) -> Float[Tensor, "layers heads"]:
        """Gate times mean weight of each layer and head; 0 where the gate is closed, NaN where a layer is not fused."""
        logits = self.logits[sharer, PARTS.index(part)]
        heads = max((len(w) for w in self.weights.values()), default=1)
        table = torch.full((len(logits), heads), torch.nan)
        for layer, logit in enumerate(logits):
            weights = self.weights.get((sharer, part, layer))
            if weights is not None or not torch.isnan(logit):
                # Kinds without weights: 1. Kinds without gates: always open.
                is_open = float(torch.isnan(logit) or logit > 0)
                table[layer, : heads if weights is None else len(weights)] = is_open * (
                    torch.ones(heads) if weights is None else weights
                )
        return table

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for NaN."""
        sharers = []
        for n in range(len(self.logits)):
            parts = {part: self._part(n, part) for part in PARTS}
            opened = self.logits[n][~torch.isnan(self.logits[n])] > 0
            sharers.append({**parts, "open_fraction": float(opened.float().mean()) if len(opened) else None})
        return {"tokens": self.tokens, "sharers": sharers}

    def _part(self, sharer: int, part: str) -> dict[str, Any]:
        logits = self.logits[sharer, PARTS.index(part)]
        intervals = [self.intervals.get((sharer, part, layer)) for layer in range(len(logits))]
        return {
            "logits": _plain(logits),
            "gate_times_weight": [_plain(row) for row in self.effective(sharer, part)],
            "weight_ci95": [pair and _plain(torch.tensor(pair)) for pair in intervals],
        }


def _plain(row: Tensor) -> list[float | None]:
    return [None if torch.isnan(value) else float(value) for value in row]


@torch.no_grad()
def gate_report(model: C2CModel, prompts: Iterable[PromptBatch]) -> GateReport:
    """Fuse prompts and record the head weights of all fused tokens."""
    sums: dict[_Place, list[Tensor]] = defaultdict(list)
    counts: dict[_Place, list[int]] = defaultdict(list)

    def record(place: _Place, weights: Float[Tensor, "tokens heads"]) -> None:
        sums[place].append(weights.double().sum(0).cpu())
        counts[place].append(len(weights))

    with recorded_weights(model.fuser, record):
        for prompt in prompts:
            model.fuse(prompt.to(model.receiver.device))
    totals = {place: sum(batches) for place, batches in counts.items()}
    means = {place: (torch.stack(of_place).sum(0) / totals[place]).float() for place, of_place in sums.items()}
    intervals = {place: _interval(of_place, counts[place]) for place, of_place in sums.items()}
    return GateReport(max(totals.values(), default=0), model.fuser.gate_logits(), means, intervals)


def _interval(sums: list[Tensor], counts: list[int]) -> tuple[float, float]:
    """Of the mean weight over heads, from the means of the batches."""
    means = [float(total.mean()) / count for total, count in zip(sums, counts, strict=True) if count]
    return bootstrap_interval(means) if len(means) > 1 else (math.nan, math.nan)


@contextmanager
def recorded_weights(fuser: Fuser, record: Callable[[_Place, Tensor], None]) -> Iterator[None]:
    """Calls `record` with sharer, part, receiver layer, and the weights (tokens, heads) of each fusion in the context.

    Kinds whose keys and values have no module `weighting` are left out.
    """
    handles = []
    for number, sharer in enumerate(fuser.sharers):
        for group in sharer.groups:
            for part in PARTS:
                weighting = getattr(getattr(group, part, None), "weighting", None)
                if isinstance(weighting, torch.nn.Module):
                    hook = _hook(number, part, list(group.receiver_layers), record)
                    handles.append(weighting.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(number: int, part: str, layers: list[int], record: Callable[[_Place, Tensor], None]) -> Any:
    def hook(module: Any, inputs: Any, weights: Tensor) -> None:
        # (layers, tokens, heads, 1); ablations have the number 1.
        if weights.ndim == 4:
            for layer, of_layer in zip(layers, weights, strict=True):
                record((number, part, layer), of_layer[..., 0])

    return hook

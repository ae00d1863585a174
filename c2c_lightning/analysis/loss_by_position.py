"""Loss by the position of a token in its response: how long a fused cache helps (long answers)."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from c2c_lightning.analysis.statistics import bootstrap_interval
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.mismatch import swap_rows
from c2c_lightning.errors import ConfigurationError
from c2c_lightning.model.c2c import C2CModel

WHO = ("c2c", "mismatched", "receiver")
"""With the right sharer caches, with those of another row, and the receiver alone."""


@dataclass(frozen=True)
class SpanLoss:
    """Loss over the response tokens from `begin` up to `end`, in nats.

    Attributes:
        begin: first position, from 0.
        end: position after the last; None for the end of the response.
        rows: responses that have such tokens.
        tokens: their tokens.
        loss: by who, the mean over all these tokens.
        transferred: mismatched minus c2c: what the right cache is worth over another row's, mean over rows.
        ci95: bootstrap interval of `transferred`, over rows.
    """

    begin: int
    end: int | None
    rows: int
    tokens: int
    loss: dict[str, float]
    transferred: float
    ci95: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def loss_by_position(model: C2CModel, batches: Iterable[TrainingBatch], edges: Sequence[int]) -> list[SpanLoss]:
    """Losses of the response tokens, span by span.

    Args:
        model: the fused model, in evaluation mode.
        batches: the rows; a batch of one row has no other row to take a cache from, and is left out.
        edges: positions that divide the responses, increasing: (16, 64) gives 0-15, 16-63, and 64 to the end.

    Raises:
        ConfigurationError: edges that do not increase from 1.
    """
    bounds = [0, *edges, None]
    if any(a >= b for a, b in zip([0, *edges], edges, strict=False)):
        raise ConfigurationError(f"`edges` must increase from 1, but are {list(edges)}.")
    rows: dict[str, list[Tensor]] = defaultdict(list)
    for batch in batches:
        if len(batch) > 1:
            for who, losses in zip(WHO, _three(model, batch), strict=True):
                rows[who] += [row[mask] for row, mask in zip(losses, batch.response_mask.cpu(), strict=True)]
    return [_span(rows, begin, end) for begin, end in itertools.pairwise(bounds) if begin is not None]


@torch.no_grad()
def token_losses(
    model: C2CModel, batch: TrainingBatch, active_sharers: Sequence[int] | None = None
) -> Float[Tensor, "rows response"]:
    """Cross-entropy of each response token, in nats, float32 on the CPU."""
    logits = model(batch.prompt, batch.response_ids, batch.response_mask, active_sharers).logits[:, :-1].float()
    ids = batch.response_ids.to(logits.device)
    losses: Tensor = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return losses.cpu()


def _three(model: C2CModel, batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor]:
    return token_losses(model, batch), token_losses(model, swap_rows(batch)), token_losses(model, batch, ())


def _span(rows: dict[str, list[Tensor]], begin: int, end: int | None) -> SpanLoss:
    parts = {who: [row[begin:end] for row in rows[who] if len(row) > begin] for who in WHO}
    means = {who: float(torch.cat(found).mean()) if found else math.nan for who, found in parts.items()}
    gains = [float((b - a).mean()) for a, b in zip(parts["c2c"], parts["mismatched"], strict=True)]
    mean = sum(gains) / len(gains) if gains else math.nan
    tokens = sum(map(len, parts["c2c"]))
    return SpanLoss(begin, end, len(gains), tokens, means, mean, bootstrap_interval(gains))

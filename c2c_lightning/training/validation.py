"""Validation losses: with fusion, with mismatched caches, and of the receiver alone."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.mismatch import swap_rows

logger = logging.getLogger(__name__)


@runtime_checkable
class HasLoss(Protocol):
    """A fused model of one direction."""

    has_bare_receiver: bool

    @property
    def sharers(self) -> Sequence[Any]:
        """Its sharers."""
        ...

    def batch_loss(self, batch: TrainingBatch, active_sharers: tuple[int, ...] | None = None) -> Tensor:
        """Summed cross-entropy of the supervised response tokens."""
        ...


class ValidationLosses(nn.Module):
    """Losses of one validation, over all processes.

    - `val/loss`: with fusion.
    - `val/loss_mismatched`: with fusion, each row with the sharer cache of the next row in its batch. Its difference to
      `val/loss` measures transferred information; the remaining gain over the receiver is extra capacity of the fuser.
      Batches of one row are left out.
    - `val/loss_receiver`: of the receiver alone. It is constant, so it is computed once per run. Not where the weights
      of the receiver itself are trained.

    NaN in a batch makes the mean NaN, with a warning.

    Args:
        per_token: average over the supervised tokens, or over the batches' means (as released).
    """

    def __init__(self, per_token: bool) -> None:
        super().__init__()
        self.per_token = per_token
        # By default torchmetrics leaves out NaN; with "disable" it ignores weights. NaN in place of NaN keeps it.
        self.fused, self.mismatched, self.receiver = (MeanMetric(nan_strategy=math.nan) for _ in range(3))
        self.pairs = SumMetric()
        self._receiver_loss: Tensor | None = None

    @property
    def has_data(self) -> bool:
        """Whether a batch was measured since the last result."""
        return self.fused.update_called

    def forget(self) -> None:
        """Start a run, which may have other validation data."""
        self._receiver_loss = None

    def update(self, model: HasLoss, batch: TrainingBatch) -> None:
        """Measure a batch three times on the same tokens."""
        num_tokens = batch.response_mask.sum()
        weight = num_tokens if self.per_token else num_tokens.clamp(max=1)
        tokens = num_tokens.clamp(min=1)
        self.fused.update(model.batch_loss(batch) / tokens, weight)
        if model.sharers:
            # Computed for a single row too: where the fuser is sharded, processes must make the same number of passes.
            other = model.batch_loss(swap_rows(batch)) / tokens
            self.mismatched.update(other if len(batch) > 1 else torch.zeros_like(other), weight * (len(batch) > 1))
            self.pairs.update(len(batch) - 1)
        if model.has_bare_receiver and self._receiver_loss is None:
            self.receiver.update(model.batch_loss(batch, active_sharers=()) / tokens, weight)

    def compute(self, is_trial: bool) -> dict[str, Tensor]:
        """The losses in nats per token; resets them.

        Args:
            is_trial: whether these are a few batches before training, whose receiver loss is not that of the run.
        """
        losses = {"val/loss": self.fused.compute()}
        receiver = self.receiver.compute() if self.receiver.update_called else self._receiver_loss
        if receiver is not None:
            losses["val/loss_receiver"] = receiver
        if not is_trial:
            self._receiver_loss = receiver
        if self.pairs.update_called and self.pairs.compute() > 0:
            losses["val/loss_mismatched"] = self.mismatched.compute()
        for name, value in losses.items():
            if not torch.isfinite(value):
                logger.warning("%s is %s: at least one validation batch has a non-finite loss.", name, float(value))
        for metric in (self.fused, self.mismatched, self.receiver, self.pairs):
            metric.reset()
        return losses

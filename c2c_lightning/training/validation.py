"""What a validation measures: the loss with fusion, beside the two losses that say what it is worth."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.mismatch import swap_sharers
from c2c_lightning.training.train_model import TrainModel


class ValidationLosses(nn.Module):
    """Losses of one validation, over all processes.

    - `val/loss`: with fusion.
    - `val/loss_mismatched`: with fusion, each row reading the sharer's cache of its neighbour in the batch. What the
      right cache is worth over it has been communicated; the rest of a gain is the fuser's own. Rows without a
      neighbour have no part in it.
    - `val/loss_receiver`: of the receiver alone. It never changes, so in one run it is computed once.
    """

    def __init__(self, per_token: bool) -> None:
        """Average over the rows' supervised tokens, or over the batches' means (as released)."""
        super().__init__()
        self.per_token = per_token
        self.fused, self.mismatched, self.receiver = MeanMetric(), MeanMetric(), MeanMetric()
        self._receiver_loss: Tensor | None = None

    def forget(self) -> None:
        """A run begins; another one may have other validation data."""
        self._receiver_loss = None

    def update(self, model: TrainModel, batch: TrainingBatch) -> None:
        """Measure a batch, the same tokens three times."""
        num_tokens = batch.response_mask.sum()
        weight = num_tokens if self.per_token else num_tokens.clamp(max=1)
        tokens = num_tokens.clamp(min=1)
        self.fused.update(model.batch_loss(batch) / tokens, weight)
        # Run for a single row too: where the fuser is sharded, processes must make as many passes.
        self.mismatched.update(model.batch_loss(mismatched(batch)) / tokens, weight * (len(batch) > 1))
        if self._receiver_loss is None:
            self.receiver.update(model.batch_loss(batch, active_sharers=()) / tokens, weight)

    def compute(self, is_trial: bool) -> dict[str, Tensor]:
        """The losses in nats per token, and a fresh start.

        Args:
            is_trial: a few batches before training, whose receiver's loss does not count for the run.
        """
        receiver = self.receiver.compute() if self._receiver_loss is None else self._receiver_loss
        if not is_trial:
            self._receiver_loss = receiver
        losses = {"val/loss": self.fused.compute(), "val/loss_receiver": receiver}
        mismatched_loss = self.mismatched.compute()
        if not mismatched_loss.isnan():  # no batch had two rows
            losses["val/loss_mismatched"] = mismatched_loss
        for metric in (self.fused, self.mismatched, self.receiver):
            metric.reset()
        return losses


def mismatched(batch: TrainingBatch) -> TrainingBatch:
    """The batch with each row's sharers reading the next row's prompt, the last row's the first's."""
    rows = torch.arange(len(batch), device=batch.prompt.receiver.input_ids.device).roll(-1)
    return TrainingBatch(swap_sharers(batch.prompt, batch.prompt.select(rows)), batch.response_ids, batch.response_mask)

"""A fuser that is trained on mismatched caches: it can learn capacity, but no content."""

from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_warn

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.mismatch import swap_rows
from c2c_lightning.training.baselines.baseline import Baseline


@dataclass(frozen=True)
class MismatchedCaches(Baseline):
    """In training each row has the sharers' prompts of another row of its batch; validation is that of C2C.

    The fuser has the same size, sees the same rows and learns the form of the answers, but the caches hold nothing
    about them. Its gain over the receiver is what extra parameters give; what C2C gains beyond it is content.
    Rows without another one in their batch are left out of the loss.
    """

    def training_batch(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch with swapped sharers; without supervised tokens if it has one row only."""
        if len(batch) > 1:
            return swap_rows(batch)
        rank_zero_warn("A batch of one row has no mismatched cache, so its row is left out. Raise `data.batch_size`.")
        mask = batch.response_mask
        return TrainingBatch(batch.prompt, batch.response_ids, mask.new_zeros(mask.shape), batch.supervised[:0])

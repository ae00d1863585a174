"""A training batch of a hub: one batch for each direction."""

from collections.abc import Mapping

import torch
from torch import Tensor

from c2c_lightning.data.batch import TrainingBatch


class JointBatch:
    """Batches of several directions, which are trained on in one step.

    Attributes:
        batches: the batch of each direction, by its name.
    """

    def __init__(self, batches: Mapping[str, TrainingBatch]) -> None:
        self.batches = dict(batches)

    def __len__(self) -> int:
        """Number of examples."""
        return sum(map(len, self.batches.values()))

    @property
    def num_supervised(self) -> Tensor:
        """Number of supervised tokens, ()."""
        return torch.stack([batch.num_supervised for batch in self.batches.values()]).sum()

    @property
    def num_receiver_tokens(self) -> int:
        """Tokens that the receivers process, padding included."""
        return sum(batch.num_receiver_tokens for batch in self.batches.values())

    def to(self, device: torch.device | str) -> "JointBatch":
        """The same batches on another device."""
        return JointBatch({name: batch.to(device) for name, batch in self.batches.items()})


StepBatch = TrainingBatch | JointBatch
"""A batch of one pair, or of several directions."""

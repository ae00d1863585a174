"""Result of a teacher-forced pass."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class C2COutput:
    """Result of a teacher-forced pass.

    Attributes:
        loss: mean cross-entropy over the supervised response tokens.
        make_logits: computes the logits; the loss needs none where nothing is supervised.
    """

    loss: Tensor
    make_logits: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """(batch, 1 + response, vocab), at the last prompt token and at each response token; computed on demand."""
        with torch.set_grad_enabled(self.loss.requires_grad):
            return self.make_logits()

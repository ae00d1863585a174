"""Token counts of rows, and the limits of a batch of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Row numbers, (rows,)."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows in tokens.

    Attributes:
        prompts: (rows, models) the prompt of the receiver and of each sharer.
        responses: (rows,) the response.
    """

    prompts: NDArray[np.int64]
    responses: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.responses)

    def take(self, rows: Rows) -> "Lengths":
        """The lengths of some rows."""
        return Lengths(self.prompts[rows], self.responses[rows])

    def blurred(self, random: np.random.Generator, share: float) -> "Lengths":
        """Each length up to `share` longer at random: rows of similar length are sorted differently each time."""
        prompts = np.ceil(self.prompts * random.uniform(1, 1 + share, (len(self), 1)))
        responses = np.ceil(self.responses * random.uniform(1, 1 + share, len(self)))
        return Lengths(prompts.astype(np.int64), responses.astype(np.int64))

    @property
    def real_tokens(self) -> int:
        """Tokens of all models together, without padding."""
        return int(self.prompts.sum() + self.responses.sum())

    @property
    def padded_tokens(self) -> int:
        """Tokens of all models if the rows are one batch: rows times its longest prompts and longest response."""
        return len(self) * int(self.prompts.max(0).sum() + self.responses.max()) if len(self) else 0


@dataclass(frozen=True)
class BatchLimits:
    """Limits of a batch. At least one is set; both may be.

    Attributes:
        batch_size: rows.
        max_tokens: tokens over all models, padding included. A longer row is a batch alone.
    """

    batch_size: int | None = None
    max_tokens: int | None = None

    def allow(self, lengths: Lengths) -> bool:
        """Whether these rows may be one batch."""
        if len(lengths) == 1:
            return True
        fits_rows = self.batch_size is None or len(lengths) <= self.batch_size
        return fits_rows and (self.max_tokens is None or lengths.padded_tokens <= self.max_tokens)

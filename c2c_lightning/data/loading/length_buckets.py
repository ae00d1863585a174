"""Rows of similar lengths put together, so that little is padded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Row numbers, (rows,)."""


@dataclass(frozen=True)
class Lengths:
    """How long rows are, in tokens.

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
        """Each length up to `share` longer at random, so that rows of about one length are sorted anew each time."""
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
    """How large a batch may be. At least one limit is set; both may be.

    Attributes:
        batch_size: rows.
        max_tokens: tokens over all models, padding included. A row that is longer by itself is a batch of its own.
    """

    batch_size: int | None = None
    max_tokens: int | None = None

    def allow(self, lengths: Lengths) -> bool:
        """Whether these rows may be one batch."""
        if len(lengths) == 1:
            return True
        fits_rows = self.batch_size is None or len(lengths) <= self.batch_size
        return fits_rows and (self.max_tokens is None or lengths.padded_tokens <= self.max_tokens)


def cut_batches(rows: Rows, lengths: Lengths, limits: BatchLimits) -> list[Rows]:
    """Cut rows into batches with little padding.

    A set of rows that is too large for one batch is sorted by prompt or by response length and cut in two, at the
    place and in the order in which the halves have the fewest padded tokens, until every piece fits. Ties keep the
    order in which rows come, so a shuffled input gives other batches each time.

    Args:
        rows: the rows to cut.
        lengths: the lengths of *all* rows.
        limits: how large a batch may be.

    Returns:
        Batches; neighbours in the list have similar lengths. With a `batch_size` alone there are
        `ceil(len(rows) / batch_size)` of them.
    """
    batches, waiting = [], [rows]
    while waiting:
        piece = waiting.pop()
        if limits.allow(lengths.take(piece)):
            batches.append(piece)
            continue
        left, right = _cut_in_two(piece, lengths, limits)
        waiting += [right, left]
    return batches


def _cut_in_two(rows: Rows, lengths: Lengths, limits: BatchLimits) -> tuple[Rows, Rows]:
    own = lengths.take(rows)
    orders = [np.argsort(key, kind="stable") for key in (own.prompts.sum(1), own.responses)]
    places = _places_to_cut(len(rows), limits)
    costs = [_costs(own.take(order), places, limits) for order in orders]  # one (places,) for each order
    best = int(np.argmin([cost.min() for cost in costs]))
    ordered, place = rows[orders[best]], places[costs[best].argmin()]
    return ordered[:place], ordered[place:]


def _places_to_cut(count: int, limits: BatchLimits) -> Rows:
    """Row counts of the left half: whole batches while there are more rows than one batch takes."""
    step = limits.batch_size if limits.batch_size is not None and limits.batch_size < count else 1
    return np.arange(step, count, step)


def _costs(ordered: Lengths, places: Rows, limits: BatchLimits) -> NDArray[np.float64]:
    """What is padded and computed if the ordered rows are cut at each of the places, (places,)."""
    count = len(ordered)
    left = places * (_running_width(ordered)[places - 1])
    backwards = ordered.take(np.arange(count)[::-1])
    right = (count - places) * _running_width(backwards)[count - places - 1]
    if limits.max_tokens is None:
        return (left + right).astype(np.float64)
    # Without the number of batches in it, a cut likes to leave batches that are far from full.
    batches = np.ceil(left / limits.max_tokens) + np.ceil(right / limits.max_tokens)
    costs: NDArray[np.float64] = left + right + batches * limits.max_tokens
    return costs


def _running_width(ordered: Lengths) -> Rows:
    """Padded width in tokens of the first 1, 2, 3, ... rows, (rows,)."""
    width: Rows = np.maximum.accumulate(ordered.prompts).sum(1) + np.maximum.accumulate(ordered.responses)
    return width

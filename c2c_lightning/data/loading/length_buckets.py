"""Batches of rows of similar lengths, so that little is padded."""

import numpy as np
from numpy.typing import NDArray

from c2c_lightning.data.row_lengths import BatchLimits, Lengths, Rows


def cut_batches(rows: Rows, lengths: Lengths, limits: BatchLimits) -> list[Rows]:
    """Cut rows into batches with little padding; `lengths` are those of *all* rows.

    A set of rows that is too large for one batch is sorted by prompt or by response length and cut in two, at the
    place and in the order in which the halves have the fewest padded tokens, until every piece fits. Ties keep the
    order in which rows come, so a shuffled input gives other batches each time. Neighbours in the list have similar
    lengths. With a `batch_size` alone there are `ceil(len(rows) / batch_size)` batches.
    """
    batches, waiting = [], [rows]
    while waiting:
        piece = waiting.pop()
        if limits.allow(lengths.take(piece)):
            batches.append(piece)
            continue
        left, right = _cut_in_two(piece, lengths, limits)
        # A stack, so that neighbours in length stay neighbours in the list.
        waiting += [right, left]
    return batches


def _cut_in_two(rows: Rows, lengths: Lengths, limits: BatchLimits) -> tuple[Rows, Rows]:
    taken = lengths.take(rows)
    orders = [np.argsort(key, kind="stable") for key in (taken.prompts.sum(1), taken.responses)]
    places = _places_to_cut(len(rows), limits)
    costs = [_costs(taken.take(order), places, limits) for order in orders]  # one (places,) for each order
    best = int(np.argmin([cost.min() for cost in costs]))
    ordered, place = rows[orders[best]], places[costs[best].argmin()]
    return ordered[:place], ordered[place:]


def _places_to_cut(count: int, limits: BatchLimits) -> Rows:
    """Row counts of the left half: whole batches while there are more rows than one batch takes."""
    step = limits.batch_size if limits.batch_size is not None and limits.batch_size < count else 1
    return np.arange(step, count, step)


def _costs(ordered: Lengths, places: Rows, limits: BatchLimits) -> NDArray[np.float64]:
    """Padded tokens if the ordered rows are cut at each of the places, (places,)."""
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

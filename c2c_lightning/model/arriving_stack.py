"""A cache that is computed elsewhere while the receiver prefills."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, SupportsIndex

from c2c_lightning.channel.sharer_client import SharerMissingError
from c2c_lightning.channel.sharer_link import OnMissing
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV

logger = logging.getLogger(__name__)


class ArrivingStack(list[LayerKV]):
    """A `LayerStack` whose first access waits until the cache has arrived, and raises the error of its computation.

    Attributes:
        arrival: gives the layers.
    """

    def __init__(self, arrival: "Future[LayerStack]") -> None:
        super().__init__()
        self.arrival = arrival

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.arrival.result())

    def __iter__(self) -> Iterator[LayerKV]:
        """The layers, first layer first."""
        return iter(self.arrival.result())

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        """One layer, or several."""
        return self.arrival.result()[index]


def wait_for(sharer_kv: SharerKV) -> None:
    """Wait until all caches have arrived.

    Raises:
        ChannelError: one does not arrive.
    """
    for kv in sharer_kv:
        if isinstance(kv, ArrivingStack):
            kv.arrival.result()


def leave_out_missing(sharer_kv: SharerKV, on_missing: Sequence[OnMissing]) -> list[LayerStack | None]:
    """The caches that have arrived; None for those of sharers that do not answer.

    Args:
        sharer_kv: each sharer's cache.
        on_missing: for each sharer whether it may be left out.

    Raises:
        SharerMissingError: a sharer that may not be left out does not answer.
    """
    return [None if _is_missing(kv, choice) else kv for kv, choice in zip(sharer_kv, on_missing, strict=True)]


def _is_missing(kv: LayerStack | None, on_missing: OnMissing) -> bool:
    error = kv.arrival.exception() if isinstance(kv, ArrivingStack) else None
    if error is None:
        return False
    if on_missing == "refuse" or not isinstance(error, SharerMissingError):
        raise error
    logger.warning("answering without a sharer: %s", error)
    return True

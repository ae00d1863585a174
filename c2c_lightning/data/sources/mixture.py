"""Several sources in given proportions."""

from collections.abc import Sequence
from typing import Literal

from c2c_lightning.data.sources.source import Source
from c2c_lightning.errors import DataError


class Mixture:
    """Several sources, each with a share of every epoch's rows.

    Args:
        sources: the sources.
        weights: their shares, in any unit; default equal shares.
        until: an epoch lasts until the `first` source is used up (the rest of the others comes in later epochs), or
            until `all` are (small ones come several times).
    """

    def __init__(
        self,
        sources: list[Source],
        weights: Sequence[float] | None = None,
        until: Literal["first", "all"] = "first",
    ) -> None:
        weights = [1.0] * len(sources) if weights is None else list(weights)
        if not sources or len(weights) != len(sources):
            raise DataError(
                f"A mixture needs one weight for each source: {len(sources)} sources, {len(weights)} weights."
            )
        if any(not weight > 0 for weight in weights):
            raise DataError(f"The weights of a mixture must be above 0, but are {weights}. Leave unwanted sources out.")
        self.sources = sources
        self.shares = [weight / sum(weights) for weight in weights]
        self.until = until

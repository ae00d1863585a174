"""Settings of the channel between sharer and receiver."""

from dataclasses import asdict, dataclass
from typing import Literal

from c2c_lightning.channel.channel import Channel
from c2c_lightning.fuser.config_checks import check_fields, check_range


@dataclass(frozen=True)
class ChannelConfig:
    """The precision in which sharer entries are read, in training as in use.

    Attributes:
        bits: per entry: 32 (unchanged), 16 (bfloat16), 8 or 4 (integers; one bfloat16 scale per token, head and group
            of channels, keys and values apart).
        group: channels of a head that share a scale.
        noise: in training, round up or down at random instead of to the nearest integer.
    """

    bits: Literal[32, 16, 8, 4] = 32
    group: int = 64
    noise: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self)
        check_range(self, ("group",), 1, 2**20)

    @property
    def channel(self) -> Channel:
        """The channel with these settings."""
        return Channel(**asdict(self))

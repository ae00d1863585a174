"""What a receiver's process and a sharer's process say to each other, besides the caches."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from c2c_lightning.channel.envelope import VERSION
from c2c_lightning.errors import ChannelError
from c2c_lightning.kv.geometry import KVGeometry

KEY_VARIABLE = "C2C_SHARER_KEY"
"""Environment variable of the key that both processes share."""

OnMissing = Literal["refuse", "receiver_alone"]


@dataclass(frozen=True)
class SharerInfo:
    """A sharer, as its process describes it.

    Attributes:
        name: its path or hub id there.
        fingerprint: see `model_fingerprint`.
        tokenizer: fingerprint of its tokenizer.
        geometry: shapes of its cache.
        dtype: type of the entries of its cache.
        max_tokens: longest prompt, None if unlimited.
        num_embeddings: number of token ids that it has embeddings for.
        version: format version of the caches that it sends.
    """

    name: str
    fingerprint: str
    tokenizer: str
    geometry: KVGeometry
    dtype: str
    max_tokens: int | None
    num_embeddings: int
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "geometry": self.geometry.to_json()}

    @classmethod
    def from_json(cls, raw: Any, where: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ChannelError: not a description of a sharer, or of another format version.
        """
        try:
            info = cls(**{**raw, "geometry": KVGeometry.from_json(raw["geometry"])})
            is_valid = all(isinstance(getattr(info, name), str) for name in ("name", "fingerprint", "tokenizer"))
        except (TypeError, KeyError, ValueError) as error:
            raise ChannelError(f"{where} does not describe a sharer: start it with `lightning sharer`.") from error
        if not is_valid:
            raise ChannelError(f"{where} does not describe a sharer: start it with `lightning sharer`.")
        if info.version != VERSION:
            raise ChannelError(
                f"the sharer at {where} sends caches of format version {info.version}, but this process reads version "
                f"{VERSION}. Use the same release of c2c_lightning on both sides."
            )
        return info


@dataclass(frozen=True)
class PrefillRequest:
    """Asks a sharer for the entries of some tokens.

    Attributes:
        input_ids: (batch, columns), the sharer's tokens.
        attention_mask: (batch, columns).
        position_ids: (batch, columns).
        is_read: (batch, columns), 1 for a token whose entries are sent.
        layers: the layers whose entries are sent.
        bits: per entry, see `Channel`.
        group: channels that share a scale.
    """

    input_ids: list[list[int]]
    attention_mask: list[list[int]]
    position_ids: list[list[int]]
    is_read: list[list[int]]
    layers: list[int]
    bits: int = 32
    group: int = 64

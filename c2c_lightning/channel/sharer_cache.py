"""A sharer's cache as bytes: the entries of the layers and tokens that a fuser reads, in the channel's precision.

Axes: B batch, F sent tokens of the batch (packed), H KV heads, D head width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from c2c_lightning.channel.channel import PRECISIONS, Channel
from c2c_lightning.channel.entry_codec import decode_entries, encode_entries, num_values
from c2c_lightning.channel.envelope import seal, unseal
from c2c_lightning.errors import ChannelError
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}

MAX_BYTES = 2**30
"""Default limit of a cache that is read: 1 GiB."""

MAX_TOKENS = 2**24
"""Largest batch times columns that is read; a cache with few sent tokens could claim any."""


@dataclass(frozen=True)
class SharerCache:
    """Entries of one sharer for a batch of prompts.

    Attributes:
        fingerprint: identifies the sharer; see `FrozenLM.fingerprint`.
        batch: B, number of prompts.
        columns: length of the sharer's cache in tokens, padding included.
        row: (F,), the prompt of each sent token.
        token: (F,), the column of each sent token.
        entries: by sharer layer, ascending: keys (F, H, key D) and values (F, H, value D). Layers that are not read
            are absent.
        dtype: type of the entries in the sharer's cache.
    """

    fingerprint: str
    batch: int
    columns: int
    row: Int[Tensor, " sent"]
    token: Int[Tensor, " sent"]
    entries: dict[int, tuple[Float[Tensor, "sent H K"], Float[Tensor, "sent H V"]]]
    dtype: torch.dtype

    @classmethod
    def collect(
        cls,
        kv: LayerStack,
        is_read: Bool[Tensor, "batch columns"],
        layers: Sequence[int],
        fingerprint: str,
        columns: int | None = None,
    ) -> Self:
        """The part of a cache that a fuser reads.

        Args:
            kv: the sharer's cache over its prompts.
            is_read: (batch, columns), the tokens that some receiver token is fused with.
            layers: the sharer layers that some receiver layer is fused with.
            fingerprint: identifies the sharer.
            columns: length that the cache is said to have; default that of `kv`, which may end at the last token that
                is read.
        """
        if not kv:  # no layer is read
            none = torch.zeros(0, dtype=torch.long)
            return cls(fingerprint, len(is_read), columns or 0, none, none, {}, torch.float32)
        row, token = is_read[:, : kv[0].num_tokens].to(kv[0].keys.device).nonzero(as_tuple=True)
        entries = {n: (kv[n].keys[row, :, token], kv[n].values[row, :, token]) for n in sorted(set(layers))}
        return cls(fingerprint, len(is_read), columns or kv[0].num_tokens, row, token, entries, kv[0].keys.dtype)

    def to_bytes(self, channel: Channel | None = None) -> bytes:
        """The cache in the precision of a channel, default unchanged; versioned, with a checksum.

        Raises:
            ChannelError: an entry type that has no name in the format.
        """
        channel = channel or Channel()
        name = str(self.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise ChannelError(f"entries of type {name} cannot be sent. Load the sharer as {', '.join(DTYPES)}.")
        tensors = {"row": self.row.int(), "token": self.token.int()}
        tensors |= encode_entries([side for pair in self.entries.values() for side in pair], channel)
        header = {
            "fingerprint": self.fingerprint,
            "batch": self.batch,
            "columns": self.columns,
            "dtype": name,
            "bits": channel.bits,
            "group": channel.group,
            "layers": {n: [*keys.shape[1:], values.shape[2]] for n, (keys, values) in self.entries.items()},
        }
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        return seal(save(contiguous, {"header": json.dumps(header)}), compress=channel.bits < 16)

    @classmethod
    def from_bytes(cls, data: bytes, max_bytes: int = MAX_BYTES) -> Self:
        """Read what `to_bytes` wrote, on the CPU; entries come back as the channel transmits them.

        Args:
            data: the bytes.
            max_bytes: largest payload that is accepted.

        Raises:
            ChannelError: bytes that are cut short, damaged, too long, of another format or version, or inconsistent.
        """
        payload = unseal(data, max_bytes)
        try:
            tensors = load(payload)
            # The length of the safetensors header is checked by `load`.
            raw = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])["__metadata__"]["header"]
            return cls._parse(json.loads(raw), tensors)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ChannelError(f"the content of the cache is not consistent: {error}.") from error

    @classmethod
    def _parse(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        batch, columns = int(header["batch"]), int(header["columns"])
        channel, dtype = Channel(int(header["bits"]), int(header["group"])), DTYPES[header["dtype"]]
        if channel.bits not in PRECISIONS or channel.group < 1:
            raise ChannelError(
                f"the cache is sent with {channel.bits} bits per entry in groups of {channel.group} channels, but this "
                f"release reads {', '.join(map(str, PRECISIONS))} bits in groups of at least 1."
            )
        row, token = (tensors[name].long() for name in ("row", "token"))
        _check_indices(row, token, batch, columns)
        sizes = {int(n): (int(heads), int(key), int(value)) for n, (heads, key, value) in header["layers"].items()}
        layers = {n: LayerGeometry(*shape) for n, shape in sizes.items()}
        shapes = [(len(row), *side) for layer in layers.values() for side in _sides(layer)]
        sides = iter(decode_entries(tensors, shapes, channel, dtype))
        entries = {n: (next(sides), next(sides)) for n in layers}
        return cls(str(header["fingerprint"]), batch, columns, row, token, entries, dtype)

    def to_stack(self, geometry: KVGeometry, num_layers: int, device: torch.device | str = "cpu") -> LayerStack:
        """The cache for `C2CModel.generate(sharer_kv=...)`; entries that were not sent are 0.

        Args:
            geometry: shapes of the sharer's cache.
            num_layers: number of leading layers that the fuser needs.
            device: of the result.

        Raises:
            ChannelError: the entries are of a model with another cache.
        """
        for n, pair in self.entries.items():
            shape = tuple(tuple(side.shape[1:]) for side in pair)
            if n >= geometry.num_layers or shape != _sides(geometry.layers[n]):
                raise ChannelError(
                    f"the cache is of another model: its layer {n} has shapes {shape}, but the sharer of this fuser "
                    f"has {_sides(geometry.layers[n]) if n < geometry.num_layers else 'no such layer'}."
                )
        return [self._layer(n, geometry.layers[n], device) for n in range(num_layers)]

    def _layer(self, number: int, layer: LayerGeometry, device: torch.device | str) -> LayerKV:
        keys, values = (
            torch.zeros(self.batch, self.columns, *side, dtype=self.dtype, device=device) for side in _sides(layer)
        )
        if number in self.entries:
            row, token = self.row.to(device), self.token.to(device)
            keys[row, token], values[row, token] = (side.to(device) for side in self.entries[number])
        return LayerKV(keys.transpose(1, 2), values.transpose(1, 2))

    @property
    def num_values(self) -> int:
        """Number of sent entries' channels, keys and values together."""
        return sum(num_values(side.shape) for pair in self.entries.values() for side in pair)


def _sides(layer: LayerGeometry) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of one token's keys and values."""
    return (layer.kv_heads, layer.key_dim), (layer.kv_heads, layer.value_dim)


def _check_indices(row: Tensor, token: Tensor, batch: int, columns: int) -> None:
    if not (batch >= 0 and columns >= 0 and batch * columns <= MAX_TOKENS):
        raise ChannelError(f"the cache is of {batch} prompts of {columns} tokens, more than {MAX_TOKENS} in all.")
    if row.ndim != 1 or row.shape != token.shape:
        raise ChannelError("the rows and tokens of the cache are not two lists of one length.")
    for index, size, what in ((row, batch, "rows"), (token, columns, "tokens")):
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise ChannelError(f"the cache names {what} beyond its {size}.")

"""Frame of a serialised cache: magic bytes, format version, lengths, SHA-256, payload. No pickle.

8 bytes  magic       1 byte   whether the payload is compressed (zlib)
4 bytes  version     8 bytes  length of the payload before compression
32 bytes SHA-256 of all other bytes of the frame
8 bytes  length of the payload as it is sent, then the payload
"""

import hashlib
import struct
import zlib

from c2c_lightning.errors import ChannelError

MAGIC = b"C2CCACHE"
VERSION = 1
_HEADER = struct.Struct("<8sIBQQ32s")


def seal(payload: bytes, compress: bool) -> bytes:
    """The payload in its frame.

    Args:
        payload: any bytes.
        compress: whether to compress it, which pays for quantised entries only.
    """
    sent = _compressed(payload) if compress else payload
    fields = MAGIC, VERSION, int(compress), len(payload), len(sent)
    return _HEADER.pack(*fields, _digest(fields, sent)) + sent


def unseal(data: bytes, max_bytes: int) -> bytes:
    """The payload of a frame.

    Args:
        data: the frame.
        max_bytes: largest payload that is accepted, before and after decompression.

    Raises:
        ChannelError: no frame, another version, cut short, too long, or damaged.
    """
    if len(data) < _HEADER.size:
        raise ChannelError(f"a cache of {len(data)} bytes is shorter than its header. Send it again.")
    *fields, digest = _HEADER.unpack_from(data)
    magic, version, compressed, size, sent_size = fields
    if magic != MAGIC:
        raise ChannelError("these bytes are not a sharer's cache: make them with `SharerCache.to_bytes`.")
    if version != VERSION:
        raise ChannelError(
            f"the cache has format version {version}, but this release reads version {VERSION}. Use the same release "
            "of c2c_lightning on both sides."
        )
    if max(size, sent_size) > max_bytes:
        raise ChannelError(f"the cache has {max(size, sent_size)} bytes, but at most {max_bytes} are accepted.")
    sent = data[_HEADER.size :]
    if len(sent) != sent_size:
        raise ChannelError(f"the cache has {len(sent)} of {sent_size} bytes of payload. Send it again.")
    if _digest(tuple(fields), sent) != digest:
        raise ChannelError("the checksum of the cache is wrong: its bytes were damaged on the way. Send it again.")
    payload = _decompressed(sent, size) if compressed else sent
    if len(payload) != size:
        raise ChannelError(f"the payload of the cache has {len(payload)} bytes, but its header says {size}.")
    return payload


def _digest(fields: tuple[object, ...], sent: bytes) -> bytes:
    return hashlib.sha256(repr(fields).encode() + sent).digest()


def _compressed(payload: bytes) -> bytes:
    # Quantised codes repeat no sequences; only their frequencies differ.
    compressor = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(payload) + compressor.flush()


def _decompressed(sent: bytes, size: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        payload = decompressor.decompress(sent, max(size, 1))  # 0 would mean no limit
    except zlib.error as error:
        raise ChannelError(f"the payload of the cache cannot be decompressed: {error}.") from error
    if decompressor.unconsumed_tail:
        raise ChannelError(f"the payload of the cache is longer than the {size} bytes that its header says.")
    return payload

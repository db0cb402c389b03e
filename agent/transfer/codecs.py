"""What the payload of a frame may be packed with. Both libraries work without the interpreter's lock."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass

import lz4.block
import zstandard

from agent.errors import TransferError

WORTH_IT = (
    1.1  # a frame that shrinks by less than this goes as it is: unpacking would cost the target more than it saves
)
SMALLEST_BYTES = 512  # nothing is gained on less

_threads = threading.local()  # zstd's contexts are not to be shared, and cost too much to make for each frame


class Codec(enum.IntEnum):
    """Numbers of the wire: the low four bits of a frame's flags."""

    NONE = 0
    LZ4 = 1
    ZSTD = 2


@dataclass(frozen=True)
class Setting:
    """`level`: zstd's; lz4 has one way here."""

    codec: Codec
    level: int = 0


RAW = Setting(Codec.NONE)
FIXED = {"none": RAW, "lz4": Setting(Codec.LZ4), "zstd": Setting(Codec.ZSTD, 1)}
NAMES = ("auto", *FIXED)


def encode(setting: Setting, data: bytes | memoryview) -> tuple[Codec, bytes | memoryview]:
    """`data` packed as `setting` says, or as it is where that does not pay. Any thread."""
    if setting.codec == Codec.NONE or len(data) < SMALLEST_BYTES:
        return Codec.NONE, data
    packed = lz4.block.compress(data, store_size=False) if setting.codec == Codec.LZ4 else _zstd(setting.level, data)
    return (setting.codec, packed) if len(packed) * WORTH_IT <= len(data) else (Codec.NONE, data)


def decode(codec: int, payload: memoryview, size: int) -> memoryview:
    """The `size` bytes that were packed. Raises TransferError for anything else. One thread."""
    try:
        if codec == Codec.LZ4:
            data = lz4.block.decompress(payload, uncompressed_size=size)
        elif codec == Codec.ZSTD:
            data = _decompressor().decompress(payload, max_output_size=size)
        else:
            raise TransferError(f"unknown codec {codec}", hint="compare the versions of both agents")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError, MemoryError) as exc:
        raise TransferError(f"a frame packed with {Codec(codec).name.lower()} cannot be unpacked: {exc}") from exc
    if len(data) != size:
        raise TransferError(f"a frame unpacks to {len(data)} bytes instead of {size}")
    return memoryview(data)


def _zstd(level: int, data: bytes | memoryview) -> bytes:
    known: dict[int, zstandard.ZstdCompressor] = _threads.__dict__.setdefault("compressors", {})
    if level not in known:
        known[level] = zstandard.ZstdCompressor(level=level, write_checksum=False)
    return known[level].compress(data)


def _decompressor() -> zstandard.ZstdDecompressor:
    if "decompressor" not in _threads.__dict__:
        _threads.decompressor = zstandard.ZstdDecompressor()
    found: zstandard.ZstdDecompressor = _threads.decompressor
    return found

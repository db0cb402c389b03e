"""Frames between TreeSource and TreeTarget: how they are written, read and hashed. No file system here.

    frame   = magic "MTr" version:u8 sequence:u32 record...         at most FRAME_BYTES; sequence counts from 0 without gaps
    record  = op:u8 length:u32 body

    CREATE  id parent mode rdev name-length name link-target        an inode and its first name; metadata comes with META
    LINK    id parent name                                          one more name, or the new place of what was kept
    UNLINK  id parent keep:u8 name                                  keep: the inode lives on and gets a LINK in this round
    SIZE    id size                                                 before the blocks of a regular file, if it differs
    BLOCK   id index count (offset length)*count data               a block of BLOCK_BYTES: data here, the rest is a hole
    HOLES   id first count                                          blocks that are holes now
    XATTR   id name-length name value                               before META, one for each: META drops all others
    META    id mode uid gid atime mtime                             ends what is said of an inode
    END     round last:u8 entries digest                            of the whole tree as it is now on both sides

Ids are u64; 1 is the root. The digest is a sum over names and inodes, so that both sides can carry it along instead of
reading the tree again inside the freeze. It finds mistakes, not attackers: the stream itself is authenticated.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence

import xxhash

from agent.errors import TransferError

FRAME_BYTES = 1 << 20
BLOCK_BYTES = 1 << 16
ROOT_ID = 1
_MAGIC = b"MTr\x01"
_HEADER = struct.Struct("<4sI")
_RECORD = struct.Struct("<BI")
_DIGEST_MASK = (1 << 128) - 1

CREATE = struct.Struct("<QQIQH")
LINK = struct.Struct("<QQ")
UNLINK = struct.Struct("<QQB")
SIZE = struct.Struct("<QQ")
BLOCK = struct.Struct("<QQ")
HOLES = struct.Struct("<QQQ")
XATTR = struct.Struct("<QH")
META = struct.Struct("<QIIIqIqI")
END = struct.Struct("<IBQ16s")
_COUNT = struct.Struct("<H")
_EXTENT = struct.Struct("<II")

# Made on every host for itself. Copied, they would make the copy's overlay refuse to mount (ESTALE) or lie about inodes.
PRIVATE_XATTRS = frozenset(f"trusted.overlay.{name}" for name in ("origin", "uuid", "impure", "nlink"))
# Set by the policy of the host, which nobody may remove; so it is carried, but not compared.
HOST_XATTRS = frozenset({"security.selinux"})

# A block that neither side knows: its file shrank in the middle of it. Differs from every hash and from a hole.
UNKNOWN = 0


class Op(enum.IntEnum):
    """The first byte of a record."""

    CREATE = 1
    LINK = 2
    UNLINK = 3
    SIZE = 4
    BLOCK = 5
    HOLES = 6
    XATTR = 7
    META = 8
    END = 9


class FrameWriter:
    """Packs records into frames. Finished frames wait in `ready`; each is a buffer of its own, so it stays valid."""

    def __init__(self) -> None:
        self.ready: list[memoryview] = []
        self._sequence = 0
        self._start()

    def add(self, op: Op, *parts: bytes) -> None:
        length = sum(map(len, parts))
        view = self.reserve(length)
        position = 0
        for part in parts:
            view[position : position + len(part)] = part
            position += len(part)
        self.commit(op, length)

    def reserve(self, length: int) -> memoryview:
        """Room for the body of the next record, to be filled in place; it counts only after `commit`."""
        if self._used + _RECORD.size + length > FRAME_BYTES:
            self.flush()
        start = self._used + _RECORD.size
        return self._view[start : start + length]

    def commit(self, op: Op, length: int) -> None:
        """The reserved body is done and has `length` bytes, at most those that were reserved."""
        _RECORD.pack_into(self._view, self._used, op, length)
        self._used += _RECORD.size + length

    def flush(self) -> None:
        if self._used > _HEADER.size:
            self.ready.append(self._view[: self._used])
            self._sequence += 1
            self._start()

    def take(self) -> Sequence[memoryview]:
        """The finished frames, each only once."""
        frames, self.ready = self.ready, []
        return frames

    def _start(self) -> None:
        self._view = memoryview(bytearray(FRAME_BYTES))
        _HEADER.pack_into(self._view, 0, _MAGIC, self._sequence)
        self._used = _HEADER.size


def records(frame: bytes | memoryview, sequence: int) -> Iterator[tuple[Op, memoryview]]:
    """The records of one frame, which must be number `sequence`. Raises TransferError when it is no such frame."""
    view = memoryview(frame).cast("B")
    if len(view) < _HEADER.size or len(view) > FRAME_BYTES:
        raise TransferError(f"a frame of the writable layer has {len(view)} bytes")
    magic, number = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise TransferError(f"a frame of the writable layer begins with {bytes(magic)!r}, not {_MAGIC!r}")
    if number != sequence:
        raise TransferError(f"frame {number} of the writable layer came where {sequence} was due")
    position = _HEADER.size
    while position < len(view):
        if position + _RECORD.size > len(view):
            raise TransferError(f"frame {number} of the writable layer is cut off")
        op, length = _RECORD.unpack_from(view, position)
        position += _RECORD.size
        if position + length > len(view):
            raise TransferError(f"frame {number} of the writable layer is cut off")
        try:
            kind = Op(op)
        except ValueError as exc:
            raise TransferError(f"frame {number} of the writable layer has a record of kind {op}") from exc
        yield kind, view[position : position + length]
        position += length


# ---------------------------------------------------------------- blocks


def block_size(extents: Sequence[tuple[int, int]]) -> int:
    """Bytes of a BLOCK record's body that holds these (offset, length) extents."""
    return BLOCK.size + _COUNT.size + _EXTENT.size * len(extents) + sum(length for _, length in extents)


def pack_block_head(view: memoryview, node_id: int, index: int, extents: Sequence[tuple[int, int]]) -> int:
    """Write all of a BLOCK but the data, and return where the data begins."""
    BLOCK.pack_into(view, 0, node_id, index)
    _COUNT.pack_into(view, BLOCK.size, len(extents))
    position = BLOCK.size + _COUNT.size
    for offset, length in extents:
        _EXTENT.pack_into(view, position, offset, length)
        position += _EXTENT.size
    return position


def hash_block(body: memoryview, index: int) -> int:
    """Of the extents and their data, at this place in the file."""
    return xxhash.xxh3_128_intdigest(body[BLOCK.size :], seed=index) or 1


def unpack_block(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(offset in the block, data) of a BLOCK, ascending. Raises TransferError or struct.error."""
    (count,) = _COUNT.unpack_from(body, BLOCK.size)
    position = BLOCK.size + _COUNT.size
    start = position + _EXTENT.size * count
    end = 0
    for _ in range(count):
        offset, length = _EXTENT.unpack_from(body, position)
        position += _EXTENT.size
        if offset < end or not length or offset + length > BLOCK_BYTES or start + length > len(body):
            raise TransferError(f"a block with an extent of {length} bytes at {offset}")
        yield offset, body[start : start + length]
        start, end = start + length, offset + length
    if start != len(body):
        raise TransferError(f"a block with {len(body) - start} bytes too many")


class Blocks:
    """What is known of a file's content: the hash of every block that is not a hole, and their sum."""

    __slots__ = ("content", "hashes", "size")

    def __init__(self) -> None:
        self.hashes: dict[int, int] = {}
        self.content = 0
        self.size = 0

    def put(self, index: int, value: int) -> None:
        self.content = (self.content - self.hashes.get(index, 0) + value) & _DIGEST_MASK
        self.hashes[index] = value

    def drop(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            self.content = (self.content - self.hashes.pop(index)) & _DIGEST_MASK

    def resize(self, size: int) -> None:
        """The file now has `size` bytes; what it gained is a hole."""
        if size < self.size:
            whole = size // BLOCK_BYTES
            self.drop([index for index in self.hashes if index > whole or index * BLOCK_BYTES >= size])
            if whole in self.hashes:
                self.put(whole, UNKNOWN)
        self.size = size


# ---------------------------------------------------------------- digest


def add(total: int, *, plus: int = 0, minus: int = 0) -> int:
    """The sum that digests are."""
    return (total + plus - minus) & _DIGEST_MASK


def hash_entry(node_id: int, parent_id: int, name: bytes) -> int:
    return xxhash.xxh3_128_intdigest(LINK.pack(node_id, parent_id) + name)


def hash_node(
    node_id: int, status: os.stat_result, link: bytes, xattrs: Iterable[tuple[str, bytes]], content: int
) -> int:
    """Everything about an inode but its names. Times of access are not part of it, nor the size of anything but a file."""
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    hasher = xxhash.xxh3_128(
        struct.pack(
            "<QIIIQqIQ16s",
            node_id,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            size,
            seconds,
            nanoseconds,
            status.st_rdev,
            content.to_bytes(16, "little"),
        )
    )
    hasher.update(struct.pack("<I", len(link)) + link)
    for name, value in sorted(xattrs):
        if name not in HOST_XATTRS:
            key = os.fsencode(name)
            hasher.update(struct.pack("<II", len(key), len(value)) + key + value)
    return hasher.intdigest()

"""What two transfer processes say to each other: frames, source to target, and JSON lines back.

A frame is a header of 32 bytes (little-endian: magic u16, kind u8, flags u8, task u32, address u64, length u32, size u32, check u64) and
`length` bytes of payload, at most FRAME_BYTES. The low four bits of flags are the payload's codec (codecs.py); if there is one, `size` is
what it unpacks to. The high four bits are the number of the connection that the payload comes by (lanes.py), 0 where there is but one:
the one of the headers. `check` is xxh3_64 of what was packed: SSH guards the wire, this guards us against ourselves. Without a codec
`size` means nothing.

    HELLO    JSON {"protocol", "migration"}           LAYER / LAYER_END   bytes of a layer blob; JSON names it
    TREE     a frame of agent.storage.tree            MEMORY              pages of `task`, one after the other, from `address` on
    ZERO     ranges of `task` that are zero now       RUNS                the ranges that the next MEMORY is for
    FILE     JSON name and size, then FILE_DATA       ROUND               JSON: the end of something countable
    KEPT     pages of `task` that the target has of an earlier move: xxh3_128 of their content, then their ranges
    SAME     as KEPT: pages that it has of this move already, in their present version
    BASE     as KEPT, of the content that the next DELTA leads to
    DELTA    what of those pages has changed: their content is what the target has, XOR this
    JOIN     the first frame of each of several connections, before HELLO: `task` is its number, `size` how many there are
    DONE     JSON with the digest of everything since HELLO
    (`task` of a TREE: 0 is the writable layer, then come the volumes, in the order of the container's mounts.
    Ranges are pairs of u64, start and end.)

ROUND says {"expected": ...} (room.Expected) where the target is to make sure that it has room for the rest.
HELLO says {"kept": true} to learn what the target has kept: "kept_bytes" of the answer follow it, a packed PageIndex.
The answers to ROUND and DONE may have "lacking": {task: [[start, end], ...]}, pages of KEPT or SAME that were not what they should be. They
have to be sent; after a DONE with such an answer another DONE follows.
The answer to HELLO has "missing" where the container runs there already: [[task, [[start, end], ...]], ...]. "shared": it completes CRIU's
images of shared memory (shared_images.py).

Post-copy (later.py): LATER has ranges of `task` that come after DONE; HERE says that `size` bytes at `address` have.
The target answers HELLO, LAYER_END, ROUND and DONE with one JSON line each: {"ok": true, ...} or {"ok": false, "error", "hint"}.
After a no it reads nothing more.
"""

from __future__ import annotations

import array
import enum
import json
import os
import select
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from agent.errors import TransferError
from agent.transfer import codecs

PROTOCOL = 3
FRAME_BYTES = 1 << 20
MAGIC = 0x4D47
HEADER = struct.Struct("<HBBIQIIQ")
HEADER_BYTES = HEADER.size
CODEC_BITS, LANE_SHIFT = 0x0F, 4
_IOV_MAX = 1024  # buffers a call


class BrokenStream(TransferError):
    """Nobody takes what we send. Why is in the answers, if the target could still say it."""


class Kind(enum.IntEnum):
    HELLO = 1
    LAYER = 2
    LAYER_END = 3
    TREE = 4
    MEMORY = 5
    ZERO = 6
    FILE = 7
    FILE_DATA = 8
    ROUND = 9
    DONE = 10
    RUNS = 11
    KEPT = 12
    SAME = 13
    BASE = 14
    DELTA = 15
    LATER = 20
    HERE = 21
    JOIN = 22


@dataclass(frozen=True)
class Frame:
    """`payload` is valid until the next frame is read: it lies in the reader's buffer. `placed`: it is where it belongs already, and
    `payload` is empty.
    """

    kind: Kind
    task: int
    address: int
    size: int
    payload: memoryview
    placed: bool = False

    def json(self) -> dict[str, Any]:
        """Raises TransferError when the payload is no JSON object."""
        try:
            value = json.loads(bytes(self.payload))
        except ValueError as exc:
            raise TransferError(f"a {self.kind.name} frame without JSON") from exc
        if not isinstance(value, dict):
            raise TransferError(f"a {self.kind.name} frame with {type(value).__name__} instead of an object")
        return value

    def ranges(self, *, after: int = 0) -> list[tuple[int, int]]:
        """Of the payload, or what of it comes after so many bytes. Raises TransferError when that is no list of ranges."""
        if (len(self.payload) - after) % 16:
            raise TransferError(f"a {self.kind.name} frame of {len(self.payload)} bytes, which are no ranges")
        bounds = array.array("Q", bytes(self.payload[after:]))  # both ends are little-endian x86-64 or arm64
        return list(zip(bounds[::2], bounds[1::2], strict=True))


# Where the payload of a MEMORY frame of (task, address, bytes) belongs, in order; None: in the reader's buffer.
Places = Callable[[int, int, int], Sequence[memoryview] | None]


class Reader:
    """Frames out of a descriptor, into one reused buffer. Blocking; one thread. `others`: lanes 1, 2, ... of a move that has several;
    `await_header`: called before each frame, for whoever must not wait for a header that does not come.
    """

    def __init__(self, fd: int, others: Sequence[int] = (), await_header: Callable[[], None] = lambda: None) -> None:
        self._fds, self._await_header = [fd, *others], await_header
        self._digest = xxhash.xxh3_128()
        self._before = ""
        self._buffer = memoryview(bytearray(FRAME_BYTES))
        self.received_bytes = 0

    @property
    def digest(self) -> str:
        """Of every frame before the last one read: what the sender put into that one if it is DONE."""
        return self._before

    def read(self, places: Places | None = None) -> Frame | None:
        """The next frame, None at a clean end. Raises TransferError for anything that is no frame of this protocol.

        A frame of memory that is not packed is read to where `places` says, before anybody knows whether it came undamaged.
        """
        self._await_header()
        header = read_exactly(self._fds[0], bytearray(HEADER_BYTES), allow_end=True)
        if header is None:
            return None
        magic, kind, flags, task, address, length, size, check = HEADER.unpack(header)
        codec, lane = flags & CODEC_BITS, flags >> LANE_SHIFT
        if magic != MAGIC or length > FRAME_BYTES or lane >= len(self._fds) or (codec and size > FRAME_BYTES):
            raise TransferError(
                "the stream holds something that is no frame", hint="compare the versions of both agents"
            )
        direct = places(task, address, length) if places and kind == Kind.MEMORY and length and not codec else None
        if direct is not None:
            payload = self._buffer[:0]
            found = self._read_places(self._fds[lane], direct)
        else:
            payload = self._buffer[:length]
            if length:
                read_exactly(self._fds[lane], payload)
            if codec:
                payload = codecs.decode(codec, payload, size)
            found = xxhash.xxh3_64_intdigest(payload)
        if found != check:
            raise TransferError("a frame arrived damaged")
        self._before = self._digest.hexdigest() if kind == Kind.DONE else ""
        self._digest.update(header)
        self.received_bytes += HEADER_BYTES + length
        try:
            return Frame(Kind(kind), task, address, size, payload, direct is not None)
        except ValueError as exc:
            raise TransferError(f"unknown kind of frame {kind}", hint="compare the versions of both agents") from exc

    def _read_places(self, fd: int, places: Sequence[memoryview]) -> int:
        """Fill all of them; returns the check of what came."""
        rest = list(places)
        while rest:
            got = os.readv(fd, rest[:_IOV_MAX])
            if got == 0:
                raise TransferError("the stream ended in the middle of a frame")
            while rest and got >= len(rest[0]):
                got -= len(rest.pop(0))
            if got:
                rest[0] = rest[0][got:]
        check = xxhash.xxh3_64()
        for place in places:
            check.update(place)
        return check.intdigest()


def read_exactly(fd: int, into: bytearray | memoryview, *, allow_end: bool = False) -> bytearray | memoryview | None:
    """`into`, filled; None at the end of the stream where that is allowed. Raises TransferError where it is not."""
    view = memoryview(into)
    done = 0
    while done < len(view):
        got = os.readv(fd, [view[done:]])
        if got == 0:
            if allow_end and done == 0:
                return None
            raise TransferError("the stream ended in the middle of a frame")
        done += got
    return into


class Answers:
    """JSON lines that come back from the target."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = b""

    def read_exactly(self, size: int) -> bytes:
        """What follows the line that came last. Raises TransferError when the stream ends before."""
        while len(self._pending) < size:
            got = os.read(self._fd, 65536)
            if not got:
                raise TransferError("the target's transfer process is gone: the stream ended")
            self._pending += got
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def ready(self) -> bool:
        """Whether next() would return, or raise, at once."""
        return b"\n" in self._pending or bool(select.select([self._fd], [], [], 0)[0])

    def next(self, why_gone: Callable[[], str] = lambda: "") -> dict[str, Any]:
        """Wait for one line. Raises TransferError with the target's own words when it says no, or with `why_gone()` at the end."""
        while b"\n" not in self._pending:
            got = os.read(self._fd, 65536)
            if not got:
                raise TransferError(f"the target's transfer process is gone: {why_gone() or 'the stream ended'}")
            self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise TransferError(f"on the target: {answer.get('error', 'refused')}", hint=answer.get("hint", ""))
        return answer


def say(fd: int, value: Mapping[str, Any], following: bytes = b"") -> None:
    """One answer line, and bytes that it announces. Raises OSError when the source is gone."""
    write_all(fd, json.dumps(value).encode() + b"\n", following)


def write_all(fd: int, head: bytes | memoryview, body: bytes | memoryview = b"") -> None:
    """Both, however often the kernel takes less than it is given. Raises BrokenStream when the other side is gone."""
    pieces = [memoryview(head), memoryview(body)] if len(body) else [memoryview(head)]
    while pieces:
        try:
            written = os.writev(fd, pieces)
        except BrokenPipeError as exc:
            raise BrokenStream("the stream to the target is broken") from exc
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if pieces and written:
            pieces[0] = pieces[0][written:]

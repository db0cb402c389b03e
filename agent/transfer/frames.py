"""What two transfer processes say to each other: frames, source to target, and JSON lines back.

A frame is a header of 32 bytes (little-endian: magic u16, kind u8, flags u8, task u32, address u64, length u32, size u32, check u64) and
`length` bytes of payload, at most FRAME_BYTES. `check` is xxh3_64 of the payload: SSH guards the wire, this guards us against ourselves.
`size` is what the payload stands for when that is not its length (zero pages; later: compressed data).

    HELLO    JSON {"protocol", "migration"}           LAYER / LAYER_END   bytes of a layer blob; JSON names it
    TREE     a frame of agent.storage.tree            MEMORY              pages of `task` at `address`
    ZERO     `size` bytes of zeros at `address`       FILE                JSON name and size, then FILE_DATA
    (`task` of a TREE: 0 is the writable layer, then come the volumes, in the order of the container's mounts)
    ROUND    JSON: the end of something countable     DONE                JSON with the digest of everything since HELLO

The target answers HELLO, LAYER_END, ROUND and DONE with one JSON line each: {"ok": true, ...} or {"ok": false, "error", "hint"}.
After a no it reads nothing more.
"""

from __future__ import annotations

import enum
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from agent.errors import TransferError

PROTOCOL = 2
FRAME_BYTES = 1 << 20
_MAGIC = 0x4D47
_HEADER = struct.Struct("<HBBIQIIQ")
HEADER_BYTES = _HEADER.size


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


@dataclass(frozen=True)
class Frame:
    """`payload` is valid until the next frame is read: it lies in the reader's buffer."""

    kind: Kind
    task: int
    address: int
    size: int
    payload: memoryview

    def json(self) -> dict[str, Any]:
        """Raises TransferError when the payload is no JSON object."""
        try:
            value = json.loads(bytes(self.payload))
        except ValueError as exc:
            raise TransferError(f"a {self.kind.name} frame without JSON") from exc
        if not isinstance(value, dict):
            raise TransferError(f"a {self.kind.name} frame with {type(value).__name__} instead of an object")
        return value


class Writer:
    """Frames into a descriptor, with the running digest that DONE carries. Blocking; one thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = xxhash.xxh3_128()
        self.sent_bytes = 0

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def send(
        self, kind: Kind, payload: bytes | memoryview = b"", *, task: int = 0, address: int = 0, size: int = 0
    ) -> None:
        """Raises BrokenStream when the other side is gone."""
        check = xxhash.xxh3_64_intdigest(payload)
        header = _HEADER.pack(_MAGIC, kind, 0, task, address, len(payload), size, check)
        self._digest.update(header)
        _write_all(self._fd, header, payload)
        self.sent_bytes += len(header) + len(payload)

    def send_json(self, kind: Kind, value: Mapping[str, Any]) -> None:
        self.send(kind, json.dumps(value).encode())


class Reader:
    """Frames out of a descriptor, into one reused buffer. Blocking; one thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = xxhash.xxh3_128()
        self._before = ""
        self._buffer = memoryview(bytearray(FRAME_BYTES))
        self.received_bytes = 0

    @property
    def digest(self) -> str:
        """Of every frame before the last one read: what the sender put into that one if it is DONE."""
        return self._before

    def read(self) -> Frame | None:
        """The next frame, None at a clean end. Raises TransferError for anything that is no frame of this protocol."""
        header = self._read_exactly(bytearray(HEADER_BYTES), allow_end=True)
        if header is None:
            return None
        magic, kind, _, task, address, length, size, check = _HEADER.unpack(header)
        if magic != _MAGIC or length > FRAME_BYTES:
            raise TransferError(
                "the stream holds something that is no frame", hint="compare the versions of both agents"
            )
        payload = self._buffer[:length]
        if length:
            self._read_exactly(payload)
        if xxhash.xxh3_64_intdigest(payload) != check:
            raise TransferError("a frame arrived damaged")
        self._before = self._digest.hexdigest() if kind == Kind.DONE else ""
        self._digest.update(header)
        self.received_bytes += HEADER_BYTES + length
        try:
            return Frame(Kind(kind), task, address, size, payload)
        except ValueError as exc:
            raise TransferError(f"unknown kind of frame {kind}", hint="compare the versions of both agents") from exc

    def _read_exactly(self, into: bytearray | memoryview, *, allow_end: bool = False) -> bytearray | memoryview | None:
        view = memoryview(into)
        done = 0
        while done < len(view):
            got = os.readv(self._fd, [view[done:]])
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


def say(fd: int, value: Mapping[str, Any]) -> None:
    """One answer line. Raises OSError when the source is gone."""
    _write_all(fd, json.dumps(value).encode() + b"\n", b"")


def _write_all(fd: int, head: bytes, body: bytes | memoryview) -> None:
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

"""Pages that are still on the source when the container already runs here: what the filler and the move's receiver say to each other.

The filler listens on `later.socket` (seqpacket) and is the one that knows what is missing: whoever connects is told all of it
first, so a receiver that starts again, or an agent that only asks, needs no memory of its own. A packet holds records of 24 bytes,
little-endian: kind u32, task i32 (its pid inside the container), start u64, end u64 (offsets in TASK.mem, page aligned).

    filler to receiver    MISSING start end, ...; END;  then WANTED start end whenever somebody waits for a page
    receiver to filler    ARRIVED start end, after the bytes are in the file

Standard library only.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from agent.criu.spaces import PAGE, Missing, Space

SOCKET = "later.socket"
MISSING, END, WANTED, ARRIVED = 1, 2, 3, 4
_RECORD = struct.Struct("<IiQQ")
_RECORDS = 256  # in a packet at most
PACKET_BYTES = _RECORDS * _RECORD.size

Record = tuple[int, int, int, int]  # kind, task, start, end


def pack(records: list[Record]) -> Iterator[bytes]:
    for at in range(0, len(records), _RECORDS):
        yield b"".join(_RECORD.pack(*record) for record in records[at : at + _RECORDS])


def unpack(packet: bytes) -> list[Record]:
    return [_RECORD.unpack_from(packet, at) for at in range(0, len(packet) - _RECORD.size + 1, _RECORD.size)]


def read_ranges(path: Path) -> list[Missing]:
    """Of a file of little-endian u64 pairs start, end; none without the file."""
    try:
        bounds = array.array("Q", path.read_bytes())
    except FileNotFoundError:
        return []
    return [Missing(bounds[i], bounds[i + 1]) for i in range(0, len(bounds) - 1, 2)]


class Later:
    """The filler's end. `TASK.later` in `memory_dir` lists what a task lacks; the receiver writes them before the restore."""

    def __init__(self, path: Path, memory_dir: Path) -> None:
        self._memory_dir = memory_dir
        self._spaces: dict[int, Space] = {}
        self._connections: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(4)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [self._listener, *self._connections.values()]:
            connection.close()

    def fileno(self) -> int:
        return self._listener.fileno()

    def missing(self, task: int) -> list[Missing]:
        """Offsets in the memory file of `task` whose pages have not come."""
        space = self._known().get(task)
        return space.ranges if space else []

    def accept(self) -> int:
        """Somebody connects: it is told what is missing. Returns its descriptor."""
        connection, _ = self._listener.accept()
        connection.settimeout(1.0)  # nobody who does not read holds up the container's faults for long
        self._connections[connection.fileno()] = connection
        records = [(MISSING, task, r.start, r.end) for task, space in self._known().items() for r in space.ranges]
        try:
            for packet in pack([*records, (END, 0, 0, 0)]):
                connection.send(packet)
        except OSError:
            pass  # its end is read next
        return connection.fileno()

    def ask(self, task: int, offset: int) -> None:
        """Somebody waits for the page at `offset`. Without anybody to ask it is said to whoever comes next (Task.ask_again)."""
        packet = _RECORD.pack(WANTED, task, offset, offset + PAGE)
        for connection in self._connections.values():
            try:
                connection.send(packet)
            except OSError:
                continue  # gone, which poll says too

    def read(self, fd: int) -> list[tuple[int, int, int]] | None:
        """(task, start, end) of what has arrived; None when the other side has gone."""
        try:
            packet = self._connections[fd].recv(PACKET_BYTES)
        except OSError:
            return None
        if not packet:
            return None
        news = [(task, start, end) for kind, task, start, end in unpack(packet) if kind == ARRIVED]
        for task, start, end in news:
            if task in self._known():
                self._known()[task].drop(start, end)
        return news

    def hang_up(self, fd: int) -> None:
        self._connections.pop(fd).close()

    def _known(self) -> dict[int, Space]:
        """Read when there are some: they are complete before the restore begins, and before the receiver connects."""
        if not self._spaces:
            paths = self._memory_dir.glob("*.later")
            self._spaces = {int(path.stem): Space(read_ranges(path)) for path in paths}
        return self._spaces

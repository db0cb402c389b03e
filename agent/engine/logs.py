"""The log of a container: the monitor writes it, the agent reads it. Standard library only.

    2026-11-24T03:41:00.123456789Z stdout F text        a whole line
    2026-11-24T03:41:00.123456789Z stdout P text        a part: the next entry of the same stream goes on where it ends

The format is CRI's, and that of `podman --log-driver k8s-file`. A line over LINE_LIMIT_BYTES is cut into parts.
Output without a newline waits for its newline and is written as a part only when the stream ends. A file over
`max_bytes` becomes NAME.1, that one NAME.2.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.errors import InvalidArgument

LINE_LIMIT_BYTES = 16 * 1024
MAX_BYTES = 10_000_000
MAX_FILES = 3
_POLL_S = 0.1


MOST_FILES = 100
_SIZE = re.compile(r"(\d+)([kmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def limits(options: Mapping[str, str]) -> tuple[int, int]:
    """(bytes a file, files) of --log-opt: {"max-size": "10m", "max-file": "3"}. Raises InvalidArgument."""
    for name in options:
        if name not in ("max-size", "max-file"):
            raise InvalidArgument(f"{name!r} is no option of the log", hint="--log-opt max-size=10m, max-file=3")
    size, files = options.get("max-size", ""), options.get("max-file", "")
    found = _SIZE.fullmatch(size)
    if size and (not found or int(found[1]) == 0):
        raise InvalidArgument(f"max-size of the log cannot be {size!r}", hint="such as 10m or 500k")
    if files and not (files.isdigit() and 1 <= int(files) <= MOST_FILES):
        raise InvalidArgument(f"max-file of the log cannot be {files!r}", hint=f"a number from 1 to {MOST_FILES}")
    bytes_ = int(found[1]) * _UNITS[found[2].lower()] if found else MAX_BYTES
    return bytes_, int(files or MAX_FILES)


class LogWriter:
    """Appends to `path`. Not synced: a log line is not worth a disk's latency to the container that prints it."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._pending: dict[str, bytes] = {}
        self._second = -1
        self._second_text = b""
        self._open()

    def write(self, stream: str, data: bytes) -> None:
        """Take output as it comes, in pieces of any size. OSError (a full disk) loses this piece; the caller
        goes on.
        """
        lines = (self._pending.pop(stream, b"") + data).split(b"\n")
        rest = lines.pop()
        head = self._head(stream)
        entries: list[bytes] = []
        for line in lines:
            if len(line) > LINE_LIMIT_BYTES:
                line = self._cut(head, entries, line)
            entries.append(b"%s F %s\n" % (head, line))
        if len(rest) > LINE_LIMIT_BYTES:
            rest = self._cut(head, entries, rest)
        if rest:
            self._pending[stream] = rest
        self._append(entries)

    def end(self, stream: str) -> None:
        """The stream is over: what waits for a newline is written as a part."""
        if rest := self._pending.pop(stream, b""):
            self._append([b"%s P %s\n" % (self._head(stream), rest)])

    def close(self) -> None:
        for stream in list(self._pending):
            self.end(stream)
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    @staticmethod
    def _cut(head: bytes, entries: list[bytes], line: bytes) -> bytes:
        while len(line) > LINE_LIMIT_BYTES:
            entries.append(b"%s P %s\n" % (head, line[:LINE_LIMIT_BYTES]))
            line = line[LINE_LIMIT_BYTES:]
        return line

    def _head(self, stream: str) -> bytes:
        second, nanos = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
        return b"%s.%09dZ %s" % (self._second_text, nanos, stream.encode())

    def _append(self, entries: list[bytes]) -> None:
        data = b"".join(entries)
        while data:
            room = self._max_bytes - self._size
            piece = data if len(data) <= room else data[: data.rfind(b"\n", 0, max(room, 0)) + 1]
            if not piece and self._size:
                self._rotate()
                continue
            piece = piece or data  # one entry larger than a whole file
            view = memoryview(piece)
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
            data = data[len(piece) :]

    def _rotate(self) -> None:
        os.close(self._fd)
        if self._max_files == 1:
            self._path.unlink()
        for number in range(self._max_files - 1, 0, -1):
            older = _numbered(self._path, number - 1)
            if older.exists():
                older.rename(_numbered(self._path, number))
        self._open()


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One entry. `data` has its newline unless `partial`."""

    unix_ns: int
    stream: str
    partial: bool
    data: bytes


def read_log(
    path: Path,
    *,
    tail: int | None = None,
    since_unix_ns: int = 0,
    follow: Callable[[], bool] | None = None,
) -> Iterator[LogEntry]:
    """Entries oldest first, rotated files included; `tail`: only that many of the last lines (parts count).

    With `follow` the iterator goes on through rotations until `follow()` is false and everything has been read.
    Lines that do not parse are left out: a crash may have cut the last one.
    """
    reader = _Chain(path)
    try:
        existing: Iterator[LogEntry] = _parsed(reader.lines())
        existing = (entry for entry in existing if entry.unix_ns >= since_unix_ns)
        yield from existing if tail is None else deque(existing, maxlen=max(tail, 0))
        while follow is not None:
            more = follow()  # asked before the read: what was written before the end is read after the answer
            yield from (entry for entry in _parsed(reader.lines()) if entry.unix_ns >= since_unix_ns)
            if not more:
                return
            time.sleep(_POLL_S)
    finally:
        reader.close()


class _Chain:
    """Reads NAME.2, NAME.1, NAME as one file, and goes on in the successor when the file at hand is rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Whole lines up to what is there now."""
        while True:
            if self._fd < 0 and not self._next():
                return
            while data := os.read(self._fd, 1 << 18):
                parts = (self._rest + data).split(b"\n")
                self._rest = parts.pop()
                yield from parts
            if not self._next():
                return

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next(self) -> bool:
        """Open the file after the one at hand, the oldest at the start; False when there is none."""
        for _ in range(10):  # a rotation between listing and opening: look again
            files = self._files()
            current = os.fstat(self._fd).st_ino if self._fd >= 0 else 0
            inodes = [inode for inode, _ in files]
            position = inodes.index(current) + 1 if current in inodes else 0
            if position >= len(files):
                return False
            inode, path = files[position]
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if os.fstat(fd).st_ino != inode:
                os.close(fd)
                continue
            self.close()
            self._fd, self._rest = fd, b""
            return True
        return False

    def _files(self) -> list[tuple[int, Path]]:
        found = []
        for number in range(MOST_FILES, -1, -1) if _numbered(self._path, 1).exists() else (0,):
            path = _numbered(self._path, number)
            try:
                found.append((path.stat().st_ino, path))
            except FileNotFoundError:
                continue
        return found


def _numbered(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def _parsed(lines: Iterator[bytes]) -> Iterator[LogEntry]:
    seconds: dict[bytes, int] = {}
    for line in lines:
        stamp, _, rest = line.partition(b" ")
        stream, _, rest = rest.partition(b" ")
        flag, space, text = rest.partition(b" ")
        if not space or flag not in (b"F", b"P") or len(stamp) != 30:
            continue
        second = stamp[:19]
        if second not in seconds:
            try:
                seconds = {second: int(datetime.fromisoformat(second.decode() + "+00:00").timestamp())}
            except ValueError:
                continue
        if not stamp[20:29].isdigit():
            continue
        yield LogEntry(
            unix_ns=seconds[second] * 1_000_000_000 + int(stamp[20:29]),
            stream=stream.decode(errors="replace"),
            partial=flag == b"P",
            data=text if flag == b"P" else text + b"\n",
        )

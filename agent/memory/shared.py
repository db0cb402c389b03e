"""Memory that processes share without a file: MAP_SHARED | MAP_ANONYMOUS, and memfds, which CRIU makes of it when it restores it.

No process owns it, any of them may write it, come and go between two looks, so what the kernel says of one address space proves nothing.
What was sent is compared instead: a digest of each page that went to the target, against the page as it is now. It is read through a
descriptor of the memory itself, which keeps it whoever ends, and reads holes without filling them.

Pages have numbers of their own: the order in which they were first seen, so that the file at the target has no holes and is what CRIU
reads, in its order, when it restores (agent/transfer/shared_images.py). An address here is such a number times the page size.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agent.memory.areas import pages_where
from agent.memory.content import WORDS, PageDigests
from agent.memory.ranges import NOTHING, PAGE, Ranges, ranges, subtract, total_bytes, union

SEGMENT_BYTES = 4 << 20  # smaller ones CRIU writes itself: it costs some milliseconds at most
_NAMELESS, _MEMFD = "/dev/zero (deleted)", "/memfd:"
_CHUNK_PAGES = 256
Addresses = NDArray[np.uint64]


@dataclass(frozen=True)
class Inode:
    """Which shared memory. `device`: as st_dev, all of it lies on the kernel's own tmpfs; `number`: also CRIU's name of it (shmid)."""

    device: int
    number: int


def mapped(pids: Iterable[int]) -> dict[Inode, Path]:
    """The shared memory of these processes, in the order of their pids and addresses, and a link that opens it. Without what has ended."""
    device = _kernels_own()
    found: dict[Inode, Path] = {}
    for pid in sorted(pids):
        try:
            text = Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            continue
        for line in text.splitlines():
            fields = line.split(None, 5)
            if len(fields) < 6 or fields[1][3] != "s" or not (fields[5] == _NAMELESS or fields[5].startswith(_MEMFD)):
                continue
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            if os.makedev(major, minor) == device:
                start, end = (int(part, 16) for part in fields[0].split("-"))
                found.setdefault(Inode(device, int(fields[4])), Path(f"/proc/{pid}/map_files/{start:x}-{end:x}"))
    return found


class Segment:
    """One piece of shared memory on its way. Raises OSError where it cannot be opened or read."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._digests_of = PageDigests().of
        self._runs: list[tuple[int, int]] = []  # (offset, pages), in the order of our numbers
        self._offsets: Addresses = np.empty(0, np.uint64)  # of each page, by its number
        self._known: Ranges = NOTHING  # offsets that have a number
        self._digests: NDArray[np.uint64] = np.empty((0, 2), np.uint64)  # by number: of what was sent
        self._sent: NDArray[np.bool_] = np.empty(0, np.bool_)

    @classmethod
    def opened(cls, path: Path) -> Self | None:
        """None: too small to be worth it, gone, or not ours to open."""
        try:
            segment = cls(path)
        except OSError:
            return None
        if total_bytes(segment.populated()) >= SEGMENT_BYTES:
            return segment
        segment.close()
        return None

    def close(self) -> None:
        os.close(self.fd)

    @property
    def runs(self) -> NDArray[np.uint64]:
        """Shape (n, 2): offset in bytes, pages. One after the other they are the file at the target."""
        return np.array(self._runs, np.uint64).reshape(-1, 2)

    def populated(self) -> Ranges:
        """Offsets of what has been written."""
        found, at, size = [], 0, os.fstat(self.fd).st_size
        while at < size:
            try:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(self.fd, at, os.SEEK_HOLE)
            found.append((at - at % PAGE, end + -end % PAGE))
            at = end
        return ranges(found)

    def changed(self) -> Ranges:
        """Pages that are new, or not as they were sent. A page that was given back to the kernel reads as zeros."""
        self._extend(subtract(self.populated(), self._known))
        found = [NOTHING]
        buffer = np.empty(_CHUNK_PAGES * WORDS, np.uint64)
        for first in range(0, len(self._offsets), _CHUNK_PAGES):
            last = min(first + _CHUNK_PAGES, len(self._offsets))
            sent = self._sent[first:last]
            same = sent.copy()
            if sent.any():
                words = buffer[: (last - first) * WORDS]
                self.read(words.data.cast("B"), first, last)
                same &= (self._digests[first:last] == self._digests_of(words)).all(axis=1)
            found.append(pages_where(~same, first * PAGE))
        return ranges(np.concatenate(found))

    def read(self, into: memoryview, first: int, last: int) -> None:
        """The pages numbered `first` to `last`, one after the other; what lies past the end of the memory reads as zeros."""
        offsets = self._offsets[first:last]
        breaks = [0, *(np.flatnonzero(np.diff(offsets) != PAGE) + 1).tolist(), last - first]
        for begin, end in pairwise(breaks):
            at, part = int(offsets[begin]), into[begin * PAGE : end * PAGE]
            done = 0
            while done < len(part):
                got = os.preadv(self.fd, [part[done:]], at + done)
                if not got:
                    part[done:] = bytes(len(part) - done)
                    break
                done += got

    def sent(self, addresses: Addresses, words: NDArray[np.uint64]) -> None:
        """As Tracker.sent: these pages go to the target as they are here."""
        numbers = addresses // np.uint64(PAGE)
        self._digests[numbers] = self._digests_of(words)
        self._sent[numbers] = True

    def forget(self, of: Ranges) -> None:
        """The target has not what was sent of these pages: they are changed."""
        for start, end in of.tolist():
            self._sent[start // PAGE : end // PAGE] = False

    def _extend(self, new: Ranges) -> None:
        if not len(new):
            return
        self._runs += [(start, (end - start) // PAGE) for start, end in new.tolist()]
        parts = [np.arange(start, end, PAGE, dtype=np.uint64) for start, end in new.tolist()]
        self._offsets = np.concatenate([self._offsets, *parts])
        self._known = union(self._known, new)
        more = len(self._offsets) - len(self._sent)
        self._digests = np.concatenate((self._digests, np.zeros((more, 2), np.uint64)))
        self._sent = np.concatenate((self._sent, np.zeros(more, np.bool_)))


def _kernels_own() -> int:
    """st_dev of the tmpfs that has all memory of this kind."""
    fd = os.memfd_create("migrate", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)

"""The memory of a container that has left this host, kept for a while so that it need not travel when it comes back.

DIRECTORY/pages: pages in the order in which they were sent, a later version after an earlier one; DIRECTORY/index: a PageIndex with their
places. Written beside a move by a thread of its own, read beside the next one, both past the kernel's page cache (O_DIRECT): a host
with a slow disk keeps less, and no move waits for it. Nothing that is read here is believed before its xxh3_128 was compared.
"""

from __future__ import annotations

import errno
import mmap
import os
import queue
import shutil
import threading
import time
from pathlib import Path

import numpy as np

from agent import atomic
from agent.errors import TransferError
from agent.memory.ranges import PAGE
from agent.transfer.frames import FRAME_BYTES
from agent.transfer.page_digest import Digests
from agent.transfer.page_index import Addresses, PageIndex
from agent.transfer.writer import Slot

PAGES, INDEX = "pages", "index"
_WAITING = 3  # buffers that may wait for the disk
_PATIENCE_S = 5.0  # how long a move waits for the disk in all while its container runs; then pages are not kept


class Keeper:
    """At the source. Keeps at most `limit_bytes`. Never fails: what cannot be kept is sent the next time."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self._directory, self._limit = directory, limit_bytes
        self._queue: queue.Queue[tuple[Slot, int, int] | None] = queue.Queue(_WAITING)
        self._index = PageIndex()
        self._end, self._patience_s = 0, _PATIENCE_S
        self._thread: threading.Thread | None = None
        self._fd = -1
        self.error = ""
        try:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700, parents=True)
            self._fd = _open(directory / PAGES, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            self._thread = threading.Thread(target=self._run, args=(self._fd,), name="keeper", daemon=True)
            self._thread.start()
        except OSError as exc:
            self.error = str(exc)

    def keep(self, slot: Slot, task: int, addresses: Addresses, digests: Digests, *, frozen: bool) -> None:
        """The pages at the beginning of `slot`. Does not wait while `frozen`. Older versions stay: they are what their digests say."""
        size = len(addresses) * PAGE
        if not self.error and self._end + size <= self._limit:
            slot.hold()
            began = time.monotonic()
            try:
                self._queue.put((slot, size, self._end), timeout=0 if frozen else self._patience_s)
            except queue.Full:
                slot.release()
            else:
                places = np.uint64(self._end) + np.arange(len(addresses), dtype=np.uint64) * np.uint64(PAGE)
                self._index.task(task).note(addresses, digests, places)
                self._end += size
            self._patience_s = max(0.0, self._patience_s - (time.monotonic() - began))

    def finish(self) -> int:
        """Write the index; returns bytes kept, 0 when there is nothing worth having."""
        self._stop()
        if self.error or not self._end:
            return 0
        try:
            atomic.write(self._directory / INDEX, self._index.packed(places=True), durable=False)
        except OSError as exc:
            self.error = str(exc)
            return 0
        return sum(len(pages.addresses) for _, pages in self._index) * PAGE

    def close(self) -> None:
        """Idempotent; what was not finished is worthless."""
        self._stop()

    def _stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
            os.close(self._fd)

    def _run(self, fd: int) -> None:
        while (item := self._queue.get()) is not None:
            slot, size, at = item
            try:
                if not self.error:
                    done = 0
                    while done < size:
                        done += os.pwrite(fd, slot.view[done:size], at + done)
            except OSError as exc:
                self.error = str(exc)
            finally:
                slot.release()


class Kept:
    """At the target: what is here of an earlier move."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError or TransferError when there is nothing, or nothing whole."""
        self.index = PageIndex.unpacked((directory / INDEX).read_bytes(), places=True)
        self._fd = _open(directory / PAGES, os.O_RDONLY)
        self._buffer = memoryview(mmap.mmap(-1, FRAME_BYTES))

    def read(self, task: int, addresses: Addresses) -> memoryview | None:
        """The pages, one after the other, valid until the next call; None where one of them is missing or cannot be read."""
        pages = self.index.task(task)
        at, known = pages.find(addresses)
        if not known.all() or len(addresses) * PAGE > FRAME_BYTES:
            return None
        places = pages.places[at]
        breaks = np.flatnonzero(np.diff(places) != PAGE) + 1
        filled = 0
        for part in np.split(places, breaks):
            size = len(part) * PAGE
            try:
                if os.preadv(self._fd, [self._buffer[filled : filled + size]], int(part[0])) != size:
                    return None
            except OSError:
                return None
            filled += size
        return self._buffer[:filled]

    def close(self) -> None:
        os.close(self._fd)


def opened(directory: str) -> Kept | None:
    """None where nothing is kept, or what is kept is of no use."""
    if not directory:
        return None
    try:
        return Kept(Path(directory))
    except (OSError, TransferError):
        return None


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        # A file system without it; where it creates the file before it refuses, that is ours.
        return os.open(path, (flags & ~os.O_EXCL) | os.O_CLOEXEC, 0o600)

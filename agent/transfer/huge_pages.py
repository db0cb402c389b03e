"""Memory that arrives where much of it lies together: straight from the pipe into huge pages of the stage.

A tmpfs with `huge=advise` takes a huge page where a mapping asks for one, and nowhere else. That costs a third of what its 512 small
pages do, and what is read into the mapping is not copied once more. A huge page of which little arrives is memory lost until the
move's end: so there is one only where a frame fills an eighth of it, and only while what is lost in all is a fifth of the stage.
In a virtual machine whose free memory goes back to its host a huge page can cost three times what its small ones do: then small
ones it is, until the next look.

In such a file a hole is no longer what did not arrive: `gaps` says that.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.memory.ranges import NOTHING, PAGE, Ranges
from agent.transfer.pages import to_ranges

HUGE_BYTES = 2 << 20  # of x86-64, and of arm64 with 4 KiB pages
HUGE_PAGES = HUGE_BYTES // PAGE
_WORTH_IT_PAGES = HUGE_PAGES // 8
_MOST_LOST = 1 / 5  # of the stage, which is larger by a quarter for it (room.py)
_MAPPED = 4  # windows of one task after the other: memory arrives in the order of its addresses
_MADV_POPULATE_WRITE = 23  # Linux 5.14
_DEAR_S = 0.8e-3  # of processor time for one; 512 small pages take as much (docs/pages.md)
_LOOK_AGAIN = 32  # windows with small pages after a dear one

_Key = tuple[int, int]  # descriptor of a memory file, number of a window in it


class HugePages:
    """Windows of HUGE_BYTES into memory files, the offset of each a multiple of it. `stage_bytes`: of the file system."""

    def __init__(self, stage_bytes: int) -> None:
        self._most_lost = int(stage_bytes * _MOST_LOST) // PAGE
        self._lost = 0  # pages
        self._here: dict[_Key, bytearray] = {}  # of each window in use: a byte a page, 1 where something has arrived
        self._small: set[_Key] = set()  # windows that have small pages
        self._passed_over = _LOOK_AGAIN  # windows since the last dear one
        self._mapped: OrderedDict[_Key, mmap.mmap] = OrderedDict()

    def places(self, fd: int, runs: Sequence[tuple[int, int]]) -> list[memoryview] | None:
        """Where the bytes of `runs`, ranges of the file `fd`, belong; None where they are to be written in the usual way."""
        pieces = list(_pieces(runs))
        coming: dict[int, int] = {}
        for window, first, last in pieces:
            coming[window] = coming.get(window, 0) + last - first
        views: dict[int, memoryview] = {}
        for window, count in coming.items():
            if not self._usable((fd, window), count) or not self._ready((fd, window)):
                return None
            views[window] = memoryview(self._mapped[fd, window])
        self.note(fd, runs)
        return [views[window][first * PAGE : last * PAGE] for window, first, last in pieces]

    def note(self, fd: int, runs: Sequence[tuple[int, int]], *, gone: bool = False) -> None:
        """Something has arrived at `runs`, or is `gone` from there. Of all that is written, in whatever way."""
        for window, first, last in _pieces(runs):
            here = self._here.get((fd, window))
            if here is None and not gone:
                self._small.add((fd, window))
            elif here is not None:
                before = here.count(1, first, last)
                here[first:last] = bytes(last - first) if gone else b"\1" * (last - first)
                self._lost += before if gone else before - (last - first)

    def gaps(self, fd: int) -> Ranges:
        """What has not arrived and is no hole all the same."""
        windows = sorted(window for file, window in self._here if file == fd)
        if not windows:
            return NOTHING
        here = np.frombuffer(b"".join(self._here[fd, window] for window in windows), np.bool_).reshape(-1, HUGE_PAGES)
        number, page = np.nonzero(~here)
        at: NDArray[np.uint64] = np.array(windows, np.uint64)[number] * np.uint64(HUGE_BYTES)
        return to_ranges(at + page.astype(np.uint64) * np.uint64(PAGE))

    def _usable(self, key: _Key, count: int) -> bool:
        """Whether there is a huge page, or may be one for `count` pages."""
        if key in self._here:
            return True
        lost = self._lost + HUGE_PAGES - count
        if key in self._small or count < _WORTH_IT_PAGES or lost > self._most_lost:
            return False
        self._passed_over += 1
        return self._passed_over > _LOOK_AGAIN

    def _ready(self, key: _Key) -> bool:
        """Mapped, with memory behind it; False where there is no room: whoever writes in the usual way is told so."""
        area = self._mapped.get(key) or _map(*key)
        began = time.thread_time()
        try:
            # Now, with an error: a fault without room would be the end of us. Again each time, for holes are punched, too.
            area.madvise(_MADV_POPULATE_WRITE)
        except OSError as exc:
            if exc.errno not in (errno.EFAULT, errno.ENOMEM, errno.ENOSPC):
                raise
            return False
        if key not in self._here:
            self._here[key] = bytearray(HUGE_PAGES)
            self._lost += HUGE_PAGES
            if time.thread_time() - began > _DEAR_S:
                self._passed_over = 0
        self._mapped[key] = area
        self._mapped.move_to_end(key)
        while len(self._mapped) > _MAPPED:
            self._mapped.popitem(last=False)  # unmapped when the last view of it is gone
        return True


def _pieces(runs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """`runs` cut at the bounds of windows: (window, its first page, the page after the last)."""
    for start, end in runs:
        while start < end:
            window, at = divmod(start, HUGE_BYTES)
            size = min(end - start, HUGE_BYTES - at)
            yield window, at // PAGE, (at + size) // PAGE
            start += size


def _map(fd: int, window: int) -> mmap.mmap:
    end = (window + 1) * HUGE_BYTES
    if os.fstat(fd).st_size < end:
        os.ftruncate(fd, end)
    area = mmap.mmap(fd, HUGE_BYTES, offset=window * HUGE_BYTES)
    area.madvise(mmap.MADV_HUGEPAGE)
    return area

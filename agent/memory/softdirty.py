"""Dirty tracking by soft-dirty bits, for kernels that have them: clear_refs sets the mark, pagemap shows what was written since."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from agent.memory.areas import private_anonymous
from agent.memory.ranges import PAGE, Ranges, ranges
from agent.memory.tracker import Look

_SOFT_DIRTY, _SWAPPED, _PRESENT = 1 << 55, 1 << 62, 1 << 63  # Documentation/admin-guide/mm/pagemap.rst
_CLEAR_SOFT_DIRTY = "4"
_ENTRIES = 1 << 17  # 512 MiB of address space a read


class SoftDirtyTracker:
    """A Tracker. A new area carries the soft-dirty mark as a whole, so an area that is here is watched; an execve shows as all dirty.

    Reading the marks and clearing them are two calls: a write between them would be lost, so the process must stand still.
    """

    stop_to_look = True

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._looked = False

    @classmethod
    def watch(cls, pid: int) -> SoftDirtyTracker:
        """Raises OSError without the process."""
        (Path(f"/proc/{pid}") / "clear_refs").stat()
        return cls(pid)

    def look(self, *, last: bool = False) -> Look:
        written, areas = self._read()
        if not last:
            (Path(f"/proc/{self.pid}") / "clear_refs").write_text(_CLEAR_SOFT_DIRTY)
        watched = ranges(areas) if self._looked else ranges([])
        self._looked = True
        return Look(ranges(written), watched)

    def close(self) -> None:
        """The marks are the kernel's own; nothing of ours is in the process."""

    def _read(self) -> tuple[Ranges, list[tuple[int, int]]]:
        pieces: list[Ranges] = []
        areas: list[tuple[int, int]] = []
        pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, end in private_anonymous(self.pid):
                areas.append((start, end))
                for at in range(start, end, _ENTRIES * PAGE):
                    count = min(_ENTRIES, (end - at) // PAGE)
                    raw = os.pread(pagemap, count * 8, at // PAGE * 8)
                    entries = np.frombuffer(raw, np.uint64)
                    populated = (entries & np.uint64(_PRESENT | _SWAPPED)) != 0
                    dirty = (entries & np.uint64(_SOFT_DIRTY)) != 0
                    wanted = populated & dirty if self._looked else populated
                    pages = np.flatnonzero(wanted).astype(np.uint64) * np.uint64(PAGE) + np.uint64(at)
                    pieces.append(np.stack((pages, pages + np.uint64(PAGE)), axis=1))
        finally:
            os.close(pagemap)
        return (np.concatenate(pieces) if pieces else np.empty((0, 2), np.uint64)), areas

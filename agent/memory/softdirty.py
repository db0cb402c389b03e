"""Dirty tracking by soft-dirty bits, for kernels that have them: clear_refs sets the mark, pagemap shows what was written since."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.memory.areas import (
    PRESENT,
    page_entries,
    pages_where,
    populated,
    private_anonymous,
    takes_writes_from_devices,
)
from agent.memory.ranges import NOTHING, PAGE, ranges
from agent.memory.tracker import CannotWatch, Look

_SOFT_DIRTY = 1 << 55  # Documentation/admin-guide/mm/pagemap.rst
_FRAME_NUMBER = (1 << 55) - 1
_HUGE_BYTES = 2 << 20
_KPF_ZERO_PAGE = 1 << 24  # linux/kernel-page-flags.h
_CLEAR_SOFT_DIRTY = "4"


class SoftDirtyTracker:
    """A Tracker. A new area carries the soft-dirty mark as a whole, so an area that is here is watched; an execve shows as all dirty.

    Reading the marks and clearing them are two calls: a write between them would be lost, so the process must stand still.
    """

    stop_to_look = True

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._looked = False
        self._page_flags = -1

    @classmethod
    def watch(cls, pid: int) -> SoftDirtyTracker:
        """Raises OSError without the process."""
        (Path(f"/proc/{pid}") / "clear_refs").stat()
        return cls(pid)

    def look(self, *, last: bool = False) -> Look:
        if takes_writes_from_devices(self.pid):
            raise CannotWatch(f"process {self.pid} uses asynchronous I/O")
        areas = list(private_anonymous(self.pid))
        pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces = [
                pages_where(populated(entries) & (self._changed(entries, at) if self._looked else True), at)
                for start, end in areas
                for at, entries in page_entries(pagemap, start, end)
            ]
        finally:
            os.close(pagemap)
        if not last:
            (Path(f"/proc/{self.pid}") / "clear_refs").write_text(_CLEAR_SOFT_DIRTY)
        watched = ranges(areas) if self._looked else NOTHING
        self._looked = True
        return Look(ranges(np.concatenate([NOTHING, *pieces])), watched)

    def sent(self, addresses: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        """The kernel knows."""

    def close(self) -> None:
        """The marks are the kernel's own; nothing of ours is in the process."""
        if self._page_flags >= 0:
            os.close(self._page_flags)
            self._page_flags = -1

    def _changed(self, entries: NDArray[np.uint64], at: int) -> NDArray[np.bool_]:
        """Of the pages from `at` on: those marked, and those of the huge zero page. That one comes without a mark when a place that was
        emptied (MADV_DONTNEED) is read again, and CRIU dumps it as if it were memory of its own.
        """
        changed: NDArray[np.bool_] = (entries & np.uint64(_SOFT_DIRTY)) != 0
        first, step = -at % _HUGE_BYTES // PAGE, _HUGE_BYTES // PAGE
        heads = entries[first::step]
        unmarked = ((heads & np.uint64(PRESENT)) != 0) & ~changed[first::step]
        for index in np.flatnonzero(unmarked).tolist():  # one a 2 MiB
            frame = int(heads[index]) & _FRAME_NUMBER
            if self._flags_of(frame) & _KPF_ZERO_PAGE:
                changed[first + index * step :][:step] = True
        return changed

    def _flags_of(self, frame: int) -> int:
        if self._page_flags < 0:
            self._page_flags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        return int.from_bytes(os.pread(self._page_flags, 8, frame * 8), "little")

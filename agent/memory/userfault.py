"""Dirty tracking from outside by userfaultfd: write protection that the kernel lifts by itself and remembers (WP_ASYNC).

One userfaultfd(2) is injected into the process (its mm is the one that is watched), fetched with pidfd_getfd and closed there; the rest is
ioctls of ours. UFFD_USER_MODE_ONLY: a container's process may not have more, and asynchronous write protection needs no more.
Closing our descriptor ends it all: no area carries a mark of it then. CRIU dumps a process that is still watched (docs/window.md).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

import numpy as np
from numpy.typing import NDArray

from agent.linux import process, ptrace
from agent.memory import pagemap_scan
from agent.memory.areas import private_anonymous, takes_writes_from_devices
from agent.memory.ranges import NOTHING, Ranges, ranges
from agent.memory.tracker import CannotWatch, Look

# linux/userfaultfd.h, asm/unistd_64.h
_NR_USERFAULTFD, _NR_CLOSE = 323, 3
_FLAGS = 1 | os.O_CLOEXEC | os.O_NONBLOCK  # 1: UFFD_USER_MODE_ONLY
_API, _REGISTER = 0xC018AA3F, 0xC020AA00
_FEATURE_WP_UNPOPULATED, _FEATURE_WP_ASYNC = 1 << 13, 1 << 15
_REGISTER_MODE_WP = 2

# linux/fs.h
_WP_MATCHING, _CHECK_WPASYNC = 1, 2
_PAGE_IS_WRITTEN, _PAGE_IS_PRESENT, _PAGE_IS_SWAPPED = 2, 8, 16
_REGIONS = 8192


class UserfaultTracker:
    """A Tracker. Made by `watch`. The kernel reads and protects a page in one step. The process stands still all the same: a system call
    that is writing to its memory (a read(2) past the page cache) has had the page unprotected before, and writes after.
    """

    stop_to_look = True

    def __init__(self, pid: int, uffd: int) -> None:
        self.pid, self._uffd = pid, uffd
        self._found = np.empty((_REGIONS, 3), np.uint64)  # struct page_region: start, end, categories

    @classmethod
    def watch(cls, pid: int) -> UserfaultTracker:
        """Begin to watch `pid`. Raises OSError: traced by somebody, gone, another architecture, a kernel before 6.7."""
        with ptrace.stopped(pid) as stopped:
            number = stopped.call(_NR_USERFAULTFD, [_FLAGS])
            if number < 0:
                raise OSError(-number, f"userfaultfd in process {pid}: {os.strerror(-number)}")
            try:
                pidfd = os.pidfd_open(pid)
                try:
                    uffd = process.pidfd_getfd(pidfd, number)
                finally:
                    os.close(pidfd)
            finally:
                stopped.call(_NR_CLOSE, [number])
        try:
            features = _FEATURE_WP_ASYNC | _FEATURE_WP_UNPOPULATED
            fcntl.ioctl(uffd, _API, bytearray(struct.pack("<QQQ", 0xAA, features, 0)))
        except OSError:
            os.close(uffd)
            raise
        return cls(pid, uffd)

    def look(self, *, last: bool = False) -> Look:
        if takes_writes_from_devices(self.pid):
            raise CannotWatch(f"process {self.pid} uses asynchronous I/O")
        written: list[Ranges] = [NOTHING]
        watched: list[tuple[int, int]] = []
        # Opened anew each time: after an execve the old descriptor would still show the old address space.
        pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, end in private_anonymous(self.pid):
                was_watched = self._has_wp_async(pagemap, start, end)
                if (last and not was_watched) or not self._register(start, end):
                    continue
                if was_watched:
                    watched.append((start, end))
                    written.append(self._scan(pagemap, start, end, protect=not last, wanted=_PAGE_IS_WRITTEN))
                else:
                    # All of it: before Linux 6.14 mremap takes the marks of the old place along, and a page would look unwritten.
                    written.append(
                        self._scan(pagemap, start, end, protect=True, any_of=_PAGE_IS_PRESENT | _PAGE_IS_SWAPPED)
                    )
        finally:
            os.close(pagemap)
        return Look(ranges(np.concatenate(written)), ranges(watched))

    def sent(self, addresses: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        """The kernel knows."""

    def close(self) -> None:
        if self._uffd >= 0:
            os.close(self._uffd)
            self._uffd = -1

    def _register(self, start: int, end: int) -> bool:
        """Make the area ours; no effect where it is. So what is marked in it, our scans have marked: of an area that was registered by
        anybody else the kernel had to clear all marks before. False: the kernel watches no area of this kind. Raises CannotWatch
        where the process has a userfaultfd of its own on it, OSError when this address space has gone (an execve).
        """
        request = bytearray(struct.pack("<QQQQ", start, end - start, _REGISTER_MODE_WP, 0))
        try:
            fcntl.ioctl(self._uffd, _REGISTER, request)
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise CannotWatch(errno.EBUSY, f"process {self.pid} uses userfaultfd itself") from exc
            if exc.errno in (errno.ESRCH, errno.ENOMEM):
                raise
            return False
        return True

    def _has_wp_async(self, pagemap: int, start: int, end: int) -> bool:
        """Whether some userfaultfd has the area. Changes nothing."""
        request = self._request(start, end, flags=_CHECK_WPASYNC, return_mask=_PAGE_IS_WRITTEN, max_pages=1)
        try:
            pagemap_scan.ioctl(pagemap, pagemap_scan.PAGEMAP_SCAN, ctypes.addressof(request))
        except OSError as exc:
            if exc.errno == errno.EPERM:
                return False
            raise
        return True

    def _scan(self, pagemap: int, start: int, end: int, *, protect: bool, wanted: int = 0, any_of: int = 0) -> Ranges:
        """Pages of a watched area in all of the categories `wanted` and one of `any_of`; with `protect` they are watched from now on."""
        pieces: list[Ranges] = [NOTHING]
        while start < end:
            request = self._request(
                start,
                end,
                flags=_CHECK_WPASYNC | (_WP_MATCHING if protect else 0),
                category_mask=wanted,
                category_anyof_mask=any_of,
                return_mask=_PAGE_IS_WRITTEN,
            )
            count = pagemap_scan.ioctl(pagemap, pagemap_scan.PAGEMAP_SCAN, ctypes.addressof(request))
            pieces.append(self._found[:count, :2].copy())
            if request.walk_end <= start:
                break
            start = request.walk_end
        return np.concatenate(pieces)

    def _request(self, start: int, end: int, **fields: int) -> pagemap_scan.Scan:
        vector = {"vec": self._found.ctypes.data, "vec_len": _REGIONS}
        return pagemap_scan.Scan(size=ctypes.sizeof(pagemap_scan.Scan), start=start, end=end, **vector, **fields)

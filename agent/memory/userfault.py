"""Dirty tracking from outside by userfaultfd: write protection that the kernel lifts by itself and remembers (WP_ASYNC).

One userfaultfd(2) is injected into the process (its mm is the one that is watched), fetched with pidfd_getfd and closed there; the rest is
ioctls of ours. UFFD_USER_MODE_ONLY: a container's process may not have more, and asynchronous write protection needs no more.
Closing our descriptor ends it all: no area carries a mark of it, which CRIU insists on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

import numpy as np

from agent.linux import libc, process, ptrace
from agent.memory.areas import private_anonymous
from agent.memory.ranges import Ranges, ranges
from agent.memory.tracker import Look

# linux/userfaultfd.h, asm/unistd_64.h
_NR_USERFAULTFD, _NR_CLOSE = 323, 3
_FLAGS = 1 | os.O_CLOEXEC | os.O_NONBLOCK  # 1: UFFD_USER_MODE_ONLY
_API, _REGISTER = 0xC018AA3F, 0xC020AA00
_FEATURE_WP_UNPOPULATED, _FEATURE_WP_ASYNC = 1 << 13, 1 << 15
_REGISTER_MODE_WP = 2

# linux/fs.h
_PAGEMAP_SCAN = 0xC0606610
_WP_MATCHING, _CHECK_WPASYNC = 1, 2
_PAGE_IS_WRITTEN = 2
_REGIONS = 8192


_SCAN_FIELDS = (
    "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages",
    "category_inverted", "category_mask", "category_anyof_mask", "return_mask",
)  # fmt: skip


class _Scan(ctypes.Structure):  # struct pm_scan_arg
    _fields_ = tuple((name, ctypes.c_uint64) for name in _SCAN_FIELDS)


_ioctl = libc.declare("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class UserfaultTracker:
    """A Tracker. Made by `watch`. The kernel reads and protects a page in one step: the process may run."""

    stop_to_look = False

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
        written: list[Ranges] = []
        watched: list[tuple[int, int]] = []
        # Opened anew each time: after an execve the old descriptor would still show the old address space.
        pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, end in private_anonymous(self.pid):
                found = self._scan(pagemap, start, end, protect=not last)
                if found is not None:
                    watched.append((start, end))
                elif not last and self._register(start, end):
                    found = self._scan(pagemap, start, end, protect=True)
                if found is not None:
                    written.append(found)
        finally:
            os.close(pagemap)
        joined = np.concatenate(written) if written else np.empty((0, 2), np.uint64)
        return Look(ranges(joined), ranges(watched))

    def close(self) -> None:
        if self._uffd >= 0:
            os.close(self._uffd)
            self._uffd = -1

    def _register(self, start: int, end: int) -> bool:
        """False: this area cannot be watched (another userfaultfd has it, or it has just gone)."""
        try:
            fcntl.ioctl(
                self._uffd, _REGISTER, bytearray(struct.pack("<QQQQ", start, end - start, _REGISTER_MODE_WP, 0))
            )
        except OSError:
            return False
        return True

    def _scan(self, pagemap: int, start: int, end: int, *, protect: bool) -> Ranges | None:
        """Pages written in an area, which are protected again with `protect`; None when the area is not watched."""
        pieces: list[Ranges] = []
        while start < end:
            request = _Scan(
                size=ctypes.sizeof(_Scan),
                flags=_CHECK_WPASYNC | (_WP_MATCHING if protect else 0),
                start=start,
                end=end,
                vec=self._found.ctypes.data,
                vec_len=_REGIONS,
                category_mask=_PAGE_IS_WRITTEN,
                return_mask=_PAGE_IS_WRITTEN,
            )
            try:
                count = _ioctl(pagemap, _PAGEMAP_SCAN, ctypes.addressof(request))
            except OSError as exc:
                if exc.errno in (errno.EPERM, errno.EFAULT, errno.EINVAL, errno.ESRCH):
                    return None
                raise
            pieces.append(self._found[:count, :2].copy())
            if request.walk_end <= start:
                break
            start = request.walk_end
        return np.concatenate(pieces) if pieces else np.empty((0, 2), np.uint64)

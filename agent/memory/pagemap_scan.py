"""PAGEMAP_SCAN (Linux 6.7): the pages of a process by what the kernel knows of them, as ranges."""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np

from agent.linux import libc
from agent.memory.ranges import NOTHING, Ranges, ranges

# linux/fs.h
PAGEMAP_SCAN = 0xC0606610
_PRESENT, _SWAPPED, _ZERO, _GUARD = 1 << 3, 1 << 4, 1 << 5, 1 << 8
_REGIONS = 32768
_FIELDS = (
    "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages",
    "category_inverted", "category_mask", "category_anyof_mask", "return_mask",
)  # fmt: skip


class Scan(ctypes.Structure):  # struct pm_scan_arg
    _fields_ = tuple((name, ctypes.c_uint64) for name in _FIELDS)


ioctl = libc.declare("ioctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def populated(pid: int, areas: Ranges) -> Ranges:
    """The pages in private anonymous `areas` that have content of their own: in memory or in swap, and not the zero page.

    The same that CRIU asks for, but for "no file's page", which none is there: for that the kernel would look at each page's own
    structure, 24 ms a GB instead of 5. Raises OSError: gone, or a kernel before 6.7.
    """
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return ranges(np.concatenate([NOTHING, *(_scan(pagemap, start, end) for start, end in areas.tolist())]))
    finally:
        os.close(pagemap)


def _scan(pagemap: int, start: int, end: int) -> Ranges:
    """As the kernel says them: when its buffer of 512 is full just at the end, it says the last stretch twice (6.18)."""
    found = np.empty((_REGIONS, 3), np.uint64)  # struct page_region: start, end, categories
    pieces: list[Ranges] = [NOTHING]
    without = _ZERO | _GUARD
    while start < end:
        request = Scan(
            size=ctypes.sizeof(Scan),
            start=start,
            end=end,
            vec=found.ctypes.data,
            vec_len=_REGIONS,
            category_inverted=without,
            category_mask=without,
            category_anyof_mask=_PRESENT | _SWAPPED,
            return_mask=_PRESENT,
        )
        try:
            count = ioctl(pagemap, PAGEMAP_SCAN, ctypes.addressof(request))
        except OSError as exc:
            if exc.errno != errno.EINVAL or not without & _GUARD:
                raise
            without &= ~_GUARD  # a kernel before 6.15 does not tell them
            continue
        pieces.append(found[:count, :2].copy())
        start = request.walk_end
    return np.concatenate(pieces)

"""The areas of an address space whose pages can be sent ahead: private and anonymous, as CRIU's lazy memory is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.memory.ranges import PAGE, Ranges

_KERNEL_OWNED = ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")
_SWAPPED, PRESENT = 1 << 62, 1 << 63  # Documentation/admin-guide/mm/pagemap.rst
_ENTRIES = 1 << 17  # 512 MiB of address space a read


def private_anonymous(pid: int, *, executable: bool = True) -> Iterator[tuple[int, int]]:
    """(start, end) of every private area without a file, writable or not: what was written may be write-protected by now.

    `executable`: those too. Nothing for a process that is gone or has no memory (a zombie).
    """
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return
    for line in text.splitlines():
        fields = line.split(None, 5)
        if not executable and fields[1][2] == "x":
            continue
        if fields[1][3] == "p" and fields[4] == "0" and (len(fields) < 6 or fields[5] not in _KERNEL_OWNED):
            start, end = fields[0].split("-")
            yield int(start, 16), int(end, 16)


def resident_bytes(pid: int) -> tuple[int, int]:
    """(private, shared) memory of a task that is in no file, in memory or in swap; of what several share, its part. (0, 0): it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines() if line.endswith(" kB")}
    return found.get("Anonymous", 0) + found.get("Swap", 0), found.get("Pss_Shmem", 0)


def takes_writes_from_devices(pid: int) -> bool:
    """It has a context of asynchronous I/O: what a device puts into its pages later, no write protection and no dirty bit shows."""
    try:
        return "/[aio]" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def page_entries(pagemap: int, start: int, end: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """(address of the first, entries) of an area's pages. `pagemap`: an open /proc/PID/pagemap."""
    for at in range(start, end, _ENTRIES * PAGE):
        count = min(_ENTRIES, (end - at) // PAGE)
        entries = np.frombuffer(os.pread(pagemap, count * 8, at // PAGE * 8), np.uint64)
        if len(entries) < count:
            raise OSError(errno.ESRCH, "the process ended")
        yield at, entries


def populated(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where there is a page, in memory or in swap."""
    found: NDArray[np.bool_] = (entries & np.uint64(PRESENT | _SWAPPED)) != 0
    return found


def pages_where(wanted: NDArray[np.bool_], at: int) -> Ranges:
    """Ranges of those pages from `at` on that are wanted."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], wanted, [False]))))
    return edges.astype(np.uint64).reshape(-1, 2) * np.uint64(PAGE) + np.uint64(at)

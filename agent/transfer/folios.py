"""Memory that arrives at the end of a sparse file on a tmpfs: in pieces of 256 KiB that are one page of the kernel's each.

Since Linux 6.14 a tmpfs takes as large a page as what is written, where `huge=within_size` says that it may and the file does not reach
further yet: less than half of what 64 small pages cost, to write and to read (docs/pages.md), and nothing is lost, for the page is no
larger than what was written. Below the end of the file that mount option would take a huge page of 2 MiB for anything, so it is on
only while such pieces are written: a remount takes 5 microseconds. Memory comes in the order of its addresses in a move's first
round, which is most of it.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.linux import mounts

PIECE_BYTES = (
    256 << 10
)  # 1 MiB is dear in virtual machines that give free memory back to their host; 64 KiB costs Python more
_FLAGS = mounts.MS_REMOUNT | mounts.MS_NOSUID | mounts.MS_NODEV
_FAR = 1 << 41


class Folios:
    """Of all files on the tmpfs that is mounted at `stage` with huge=advise. One thread."""

    def __init__(self, stage: Path) -> None:
        """Raises OSError where that cannot be, or is not what it should be."""
        self._stage, self._large = stage, True  # as one that was killed may have left it
        self.close()
        self._probe()

    def write(self, fd: int, address: int, data: memoryview) -> None:
        """All of `data`. Raises OSError when the tmpfs is full."""
        end = address + len(data)
        if len(data) < PIECE_BYTES or address < os.fstat(fd).st_size:
            self._set(large=False)
            _write(fd, address, data)
            return
        at = 0
        while at < len(data):
            size = min(-(address + at) % PIECE_BYTES or PIECE_BYTES, end - address - at)
            # A write that ends where a larger page would end gets that, unless something is there before it.
            fits = at > 0 or (address + size) % (2 * PIECE_BYTES) != 0
            self._set(large=size == PIECE_BYTES and fits)
            _write(fd, address + at, data[at : at + size])
            at += size

    def close(self) -> None:
        """As it was mounted. Idempotent."""
        self._set(large=False)

    def _set(self, *, large: bool) -> None:
        if large != self._large:
            mounts.mount(None, self._stage, None, _FLAGS, "huge=within_size" if large else "huge=advise")
            self._large = large

    def _probe(self) -> None:
        """Try it: what is written must be what is taken, and the page after it one page."""
        path = self._stage / "folios.probe"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self.write(fd, _FAR, memoryview(bytes(PIECE_BYTES)))
            self.write(fd, _FAR + (2 << 20), memoryview(bytes(4096)))
            if os.fstat(fd).st_blocks * 512 != PIECE_BYTES + 4096:
                raise OSError(0, "this kernel takes more memory than is written")
        finally:
            self.close()
            os.close(fd)
            path.unlink()


def opened(stage: Path) -> Folios | None:
    """None where `stage` is no such tmpfs, or it is not ours to change."""
    if not mounts.is_mounted(stage):
        return None
    try:
        return Folios(stage)
    except OSError:
        return None


def _write(fd: int, address: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], address + done)

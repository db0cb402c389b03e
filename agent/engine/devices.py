"""Which disk a path means, for limits on what a container reads and writes. Standard library only.

A limit names a path, since the same disk has another number on another host: "/dev/sda" there, "/var/lib/migrate" everywhere.
The kernel limits whole disks: a partition stands for its disk; a mapped device (LVM, dm-crypt, md) is a disk of its own.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.errors import InvalidArgument

_SYS = Path("/sys/dev/block")


def disk_of(path: Path) -> int:
    """The device number of the disk that `path` is, or lies on. Raises InvalidArgument where there is none."""
    try:
        status = path.stat()
    except OSError as exc:
        raise InvalidArgument(
            f"no disk can be found by {path}: {exc.strerror}",
            hint="name the device, or a path that exists on every host, such as /var/lib/migrate",
        ) from exc
    found = _disk(status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev)
    if found is None:
        raise InvalidArgument(
            f"{path} lies on no disk: its file system has no block device of its own",
            hint="name the device itself, such as /dev/sda (ls -l /sys/class/block)",
        )
    return found


def find(path: Path) -> int | None:
    """As disk_of; None where there is none."""
    try:
        return disk_of(path)
    except InvalidArgument:
        return None


def _disk(number: int) -> int | None:
    entry = _SYS / f"{os.major(number)}:{os.minor(number)}"
    if not entry.exists():
        return None
    if not (entry / "partition").exists():
        return number
    major, _, minor = (entry.resolve().parent / "dev").read_text().strip().partition(":")
    return os.makedev(int(major), int(minor))

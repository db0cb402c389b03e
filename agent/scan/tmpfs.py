"""File systems in memory that CRIU carries itself: by `tar` and `gzip`, while the container stands still."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from agent.linux import mounts, openat2
from agent.scan import procfs
from agent.scan.finding import Blocker

SHOWN_BYTES = 64 << 20  # from here on: gzip takes about a second for them


def sizes(init_pid: int, proc: Path = procfs.PROC) -> dict[str, int]:
    """Bytes in each tmpfs of the container, by mount point. Empty where it has ended."""
    found: dict[str, int] = {}
    try:
        top = os.open(proc / str(init_pid) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        for line in procfs.text(proc / str(init_pid) / "mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] != "tmpfs":
                continue
            point = mounts.unescape(before.split(" ")[4])
            try:
                fd = openat2.open_in_root(top, os.fsencode(point), os.O_RDONLY)
            except OSError:
                continue  # under another mount, or gone
            try:
                disk = os.fstatvfs(fd)
                found[point] = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            finally:
                os.close(fd)
    finally:
        os.close(top)
    return found


def check(name: str, used: Mapping[str, int], ahead: Collection[str]) -> Iterator[Blocker]:
    """`name`: the container's. `used`: as sizes() says. `ahead`: mount points whose files are sent ahead, not by CRIU."""
    for point, size in used.items():
        if point not in ahead and size >= SHOWN_BYTES:
            yield Blocker(
                check="tmpfs",
                what=f"the tmpfs at {point} holds {size >> 20} MiB: CRIU packs it with gzip while the container stands still, about "
                f"{size / (64 << 20):.0f} s",
                where=name,
                remedy=f"mount it with --tmpfs {point} (such files go ahead), or empty it",
                warning=True,
                path=point,
            )

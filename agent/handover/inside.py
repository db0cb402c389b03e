"""What a container's tasks look like from outside: memory, files that change without a trace, what keeps it from moving. Read-only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Blocker:
    what: str
    where: str
    remedy: str


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident anonymous and shared memory; file pages come with the layers."""
    total = 0
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/status")).splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1]) * 1024
    return total


def blockers(init_pid: int, pids: Iterable[int]) -> list[Blocker]:
    """What CRIU cannot save, found by pid and descriptor."""
    found: list[Blocker] = []
    members = set(pids)
    for pid in sorted(members - {init_pid}):
        if parent(pid) not in members:
            found.append(
                Blocker(
                    what="a process that came in by exec is not init's child: CRIU would lose it",
                    where=f"pid {pid} ({_read(Path(f'/proc/{pid}/comm')).strip()})",
                    remedy="end the exec session and move again",
                )
            )
    for pid in sorted(members):
        for name, target in _descriptors(pid):
            if "io_uring" in target:
                found.append(
                    Blocker(
                        what="io_uring",
                        where=f"pid {pid}, descriptor {name}",
                        remedy="switch io_uring off in the program",
                    )
                )
    return found


def mapped_shared(pids: Iterable[int], upper: Path) -> list[tuple[int, int]]:
    """(device, inode) in `upper` of files that are mapped shared and writable: their times say nothing of their contents."""
    found: set[tuple[int, int]] = set()
    for pid in pids:
        for line in _read(Path(f"/proc/{pid}/maps")).splitlines():
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[1][1] == "w" and fields[1][3] == "s" and fields[5].startswith("/"):
                try:
                    status = (upper / fields[5].lstrip("/")).lstat()
                except OSError:
                    continue  # not in the writable layer: a device, or shared memory
                found.add((status.st_dev, status.st_ino))
    return sorted(found)


def parent(pid: int) -> int:
    for line in _read(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def _descriptors(pid: int) -> Iterable[tuple[str, str]]:
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            yield path.name, str(os.readlink(path))  # noqa: PTH115  Path.readlink would parse "anon_inode:[...]"
    except OSError:
        return  # the task is gone


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

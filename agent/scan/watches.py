"""What fdinfo and /proc/locks say: watches on files of an overlay, locks of others on the container's files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.scan import procfs
from agent.scan.finding import Blocker
from agent.scan.place import of_file
from agent.scan.procfs import OpenFile, Snapshot, Task

_WATCH = re.compile(r"^(?:inotify|fanotify).*? ino:([0-9a-f]+) sdev:([0-9a-f]+)", re.MULTILINE)
_LOCK = re.compile(r"^\d+: (?:-> )?(\S+)\s+\S+\s+(\S+)\s+(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE)
_MINOR_BITS = 20  # of the kernel's own dev_t, which fdinfo prints


def check(seen: Snapshot, proc: Path = procfs.PROC) -> Iterator[Blocker]:
    """Reads the fdinfo of watches, and of regular files only where somebody else has a lock on their file system."""
    overlays = {mount.device: mount.point for mount in seen.mounts if mount.kind == "overlay"}
    locks = dict(_others_locks(seen, procfs.text(proc / "locks")))
    for task in seen.tasks:
        for file in task.files:
            info = proc / str(task.pid) / "fdinfo" / file.descriptor
            if file.target.removeprefix("anon_inode:").strip("[]") in ("inotify", "fanotify"):
                yield from _watch(task, file, procfs.text(info), overlays)
            elif locks and file.target.startswith("/"):
                yield from _locked(task, file, procfs.text(info), seen, locks)


def _watch(task: Task, file: OpenFile, info: str, overlays: Mapping[tuple[int, int], str]) -> Iterator[Blocker]:
    watched = [
        point
        for _, device in _WATCH.findall(info)
        if (point := overlays.get((int(device, 16) >> _MINOR_BITS, int(device, 16) & (1 << _MINOR_BITS) - 1)))
    ]
    if watched:
        yield of_file(
            task,
            file,
            "inotify-overlay",
            f"it watches {len(watched)} file{'s' if len(watched) > 1 else ''} of {watched[0]}, which is an overlay: CRIU finds the "
            "file of a watch by its handle, and an overlay gives none that can be opened",
            "watch files of a volume or of a tmpfs, or let the program poll (inotify off, WATCHFILES_FORCE_POLLING, --poll)",
        )


def _others_locks(seen: Snapshot, table: str) -> Iterator[tuple[tuple[int, int, int], tuple[int, str]]]:
    """(major, minor, inode) -> (pid, "POSIX WRITE") of locks of processes that are not the container's. -1: nobody knows whose."""
    devices = {mount.device for mount in seen.mounts}
    for kind, access, pid, major, minor, inode in _LOCK.findall(table):
        device = (int(major, 16), int(minor, 16))
        if int(pid) > 0 and int(pid) not in seen.pids and device in devices:
            yield (*device, int(inode)), (int(pid), f"{kind} {access}")


def _locked(
    task: Task, file: OpenFile, info: str, seen: Snapshot, locks: Mapping[tuple[int, int, int], tuple[int, str]]
) -> Iterator[Blocker]:
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in info.splitlines())}
    mount = next((each for each in seen.mounts if str(each.number) == fields.get("mnt_id")), None)
    if mount is None or "ino" not in fields:
        return
    whose = locks.get((*mount.device, int(fields["ino"])))
    if whose is None or "lock" in fields:  # that is the descriptor's own, which a parent that has ended may have taken
        return
    yield of_file(
        task,
        file,
        "file-lock",
        f"pid {whose[0]} outside of the container has a lock ({whose[1]}) on {file.target}: after the move it holds for nobody there",
        "end that program first, or see that both may write",
        warning=True,
    )

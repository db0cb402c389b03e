"""Which processes belong to a lab, and how to end them without ever ending another's.

A pid alone is never trusted: it is kept with the time the process started, and a kill goes through a pidfd that was
checked after it was opened.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from migrate.lab import cgroups, network
from migrate.lab.layout import NETNS_DIR, LabError

_PROC = Path("/proc")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process as /proc shows it."""

    pid: int
    parent: int
    start_ticks: int  # since boot: with the pid, unique until the next boot
    command: str


def read(pid: int) -> Process | None:
    """None when there is no such process, or only its zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
        argv = (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, parentheses and spaces too: count from the last one.
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    command = argv.replace(b"\0", b" ").decode(errors="replace").strip() or f"[{name}]"
    return Process(pid=pid, parent=int(fields[1]), start_ticks=int(fields[19]), command=command)


def alive(pid: int, start_ticks: int) -> bool:
    process = read(pid)
    return process is not None and process.start_ticks == start_ticks


def everybody() -> dict[int, Process]:
    """All processes of the machine that are not zombies."""
    pids = (int(path.name) for path in _PROC.iterdir() if path.name.isdigit())
    return {pid: process for pid in pids if (process := read(pid)) is not None}


def namespace(pid: int | str, kind: str) -> tuple[int, int] | None:
    """Identity of a namespace of a process (device and inode of nsfs), None when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/ns/{kind}").stat()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return status.st_dev, status.st_ino


def _network_namespaces(prefix: str) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for name in network.names(prefix):
        status = (NETNS_DIR / name).stat()
        found.add((status.st_dev, status.st_ino))  # of a stale plain file: matches no process
    return found - {namespace(1, "net"), namespace("self", "net")}


def members(prefix: str, label: str, supervisors: Iterable[int] = ()) -> dict[int, Process]:
    """The processes of a lab: in its cgroups, network namespaces or nodes' mount namespaces, and their descendants.

    `supervisors` are pids already checked against their start time. Inodes of mount namespaces are taken only from live
    processes that are the lab's for another reason: the kernel reuses the numbers. The caller and its ancestors are
    left out.
    """
    people = everybody()
    ours = (cgroups.members(label) | set(supervisors)) & set(people)
    mounts = {namespace(pid, "mnt") for pid in ours} - {namespace(1, "mnt"), namespace("self", "mnt"), None}
    nets = _network_namespaces(prefix)
    for pid in people:
        if namespace(pid, "net") in nets or namespace(pid, "mnt") in mounts:
            ours.add(pid)
    grew = True
    while grew:  # children of children: a container's tasks have namespaces of their own
        more = {pid for pid, process in people.items() if process.parent in ours} - ours
        grew = bool(more)
        ours |= more
    for pid in _self_and_ancestors(people):
        ours.discard(pid)
    return {pid: people[pid] for pid in sorted(ours)}


def _self_and_ancestors(people: dict[int, Process]) -> set[int]:
    line: set[int] = set()
    pid = os.getpid()
    while pid in people and pid not in line:
        line.add(pid)
        pid = people[pid].parent
    return line


def send(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process. False when it is gone already."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(process.pid, process.start_ticks):  # the pid went to another before the pidfd was opened
            return False
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def kill_until_none(find: Callable[[], dict[int, Process]], *, timeout_s: float) -> int:
    """SIGKILL what `find` returns until it returns nothing. Returns how many. Raises LabError naming survivors."""
    deadline = time.monotonic() + timeout_s
    seen: set[tuple[int, int]] = set()
    while found := find():
        for process in found.values():
            seen.add((process.pid, process.start_ticks))
            send(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            rest = ", ".join(f"{process.pid} ({process.command[:60]})" for process in found.values())
            raise LabError(f"processes survived SIGKILL for {timeout_s:.0f} s: {rest}")
        time.sleep(0.02)
    return len(seen)

"""What is forbidden on a container's mounts (ro, nosuid, nodev, noexec, nosymfollow), on the source and after a restore.

CRIU does not put all of it back: before 4.2 nothing of the root (its issue 2632), and a bind whose file system is bound twice has what
the target's host has there. So the source says what held, while its tasks stand still, and the target's monitor sets what is missing, or
the restore fails. What the target's host forbids beyond that stays forbidden. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from agent.errors import AgentError
from agent.linux import mounts, namespaces, openat2, process

ATTRIBUTES = {
    "ro": mounts.MOUNT_ATTR_RDONLY,
    "nosuid": mounts.MOUNT_ATTR_NOSUID,
    "nodev": mounts.MOUNT_ATTR_NODEV,
    "noexec": mounts.MOUNT_ATTR_NOEXEC,
    "nosymfollow": mounts.MOUNT_ATTR_NOSYMFOLLOW,
}
INIT = "init"
Flags = list[
    tuple[str, list[str]]
]  # (mount point, names of ATTRIBUTES); of two mounts at one point the lower one comes first


def of_tasks(init: int, pids: Iterable[int]) -> dict[str, Flags]:
    """Of each mount namespace of these tasks: of init's by INIT, of others by the pid inside the container of one task in it. They stand
    still. JSON. Raises OSError where init is gone.
    """
    found = {INIT: of_task(init)}
    seen = {os.readlink(_namespace(init))}  # noqa: PTH115  it is no path
    for pid in sorted(pids):
        try:
            namespace = os.readlink(_namespace(pid))  # noqa: PTH115
            if namespace not in seen:
                found[str(process.inner_pid(pid))] = of_task(pid)
                seen.add(namespace)
        except (FileNotFoundError, ProcessLookupError):
            continue  # a zombie has none
    return found


def of_task(pid: int) -> Flags:
    """Of the mounts that this process sees. Raises OSError."""
    return parse(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))


def parse(mountinfo: str) -> Flags:
    """`mountinfo`: as in proc(5). Only the mount's own flags count: a mount that lies on it has its own."""
    parents: dict[int, int] = {}
    lines: list[tuple[str, int, list[str]]] = []
    for line in mountinfo.splitlines():
        number, parent, _, _, point, options, *_ = line.split(" ")
        parents[int(number)] = int(parent)
        lines.append((point, int(number), [name for name in options.split(",") if name in ATTRIBUTES]))
    # The kernel lists them in the order in which they were made, which is not that in which they lie on each other.
    lines.sort(key=lambda line: (line[0], sum(1 for _ in _above(parents, line[1]))))
    return [(mounts.unescape(point), names) for point, _, names in lines]


def lost(before: Sequence[tuple[str, Sequence[str]]], now: Flags) -> Flags:
    """What is missing `now`; of two mounts at one point, one pair each. A mount that is not there at all lacks everything."""
    there: dict[str, list[list[str]]] = {}
    for point, names in now:
        there.setdefault(point, []).append(names)
    found: Flags = []
    for point, wanted in before:
        stack = there.get(point)
        here = stack.pop(0) if stack else []
        if missing := [name for name in wanted if name not in here]:
            found.append((point, missing))
    return found


def put_back(init: int, before: dict[str, Flags], pids: Iterable[int]) -> list[str]:
    """`before`: of_tasks() on the source; `init` and `pids`: the restored tasks, which stand still. Returns what was missing, for people.

    Only a single-threaded process may call this. Raises OSError, AgentError when something stays missing.
    """
    outer = {INIT: init}
    if before.keys() - outer.keys():
        outer |= {str(process.inner_pid(pid)): pid for pid in pids}
    said = []
    for inner, flags in before.items():
        if inner not in outer:
            raise AgentError(f"process {inner}, which had mounts of its own, was not restored")
        pid = outer[inner]
        missing = lost(flags, of_task(pid))
        if not missing:
            continue
        with namespaces.mounts_of(pid):
            for point, names in missing:
                _forbid(point, names)
        said += [f"{point}: {','.join(names)}" for point, names in missing]
        if still := lost(flags, of_task(pid)):
            words = "; ".join(f"{point}: {','.join(names)}" for point, names in still)
            raise AgentError(f"mounts are less restricted than on the source, and it cannot be mended: {words}")
    return said


def _forbid(point: str, names: Iterable[str]) -> None:
    """On what is mounted on top at `point`, in the current mount namespace."""
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = openat2.open_in_root(top, os.fsencode(point), os.O_PATH | os.O_NOFOLLOW)
        try:
            mounts.mount_setattr(place, attr_set=sum(ATTRIBUTES[name] for name in names))
        finally:
            os.close(place)
    finally:
        os.close(top)


def _above(parents: dict[int, int], number: int) -> Iterator[int]:
    """The mounts that this one lies on, the next one first. The first of a namespace lies on one that is not listed, or on itself."""
    seen = {number}
    while (number := parents.get(number, number)) not in seen:
        seen.add(number)
        yield number


def _namespace(pid: int) -> str:
    return f"/proc/{pid}/ns/mnt"

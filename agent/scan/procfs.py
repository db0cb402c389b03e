"""What /proc shows of a container's tasks, read once: plain data for the checks. Creates nothing, enters nothing.

Every path hangs from `proc`, so that a recorded tree can stand for a host's. What ends while it is read is left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.linux import mounts

PROC = Path("/proc")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_KINDS = ((stat.S_ISREG, "regular"), (stat.S_ISCHR, "char"), (stat.S_ISBLK, "block"), (stat.S_ISSOCK, "socket"))
# A mapping is looked at by its name; of the hundreds of others a program has, nothing more is asked.
_TELLING = ("/dev/", "/SYSV", "/secretmem", "anon_inode:")
_DELETED = " (deleted)"


@dataclass(frozen=True, kw_only=True)
class OpenFile:
    """`target` as the link says. `kind`: "regular", "char", "block", "socket" or "". `size`: bytes on the disk. `device` is of the file
    system, `number` the device's own. Of a socket `protocol` as the kernel names it ("TCP", "UNIX-STREAM"), and `passing`: how many
    descriptors are on their way through it.
    """

    descriptor: str
    target: str
    kind: str = ""
    device: tuple[int, int] = (0, 0)
    number: tuple[int, int] = (0, 0)
    inode: int = 0
    size: int = 0
    links: int = 1
    protocol: str = ""
    passing: int = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """`inner`: its pid in the container. `tracers`: thread -> who traces it. `namespaces`: name -> "pid:[4026531836]".

    `command`: its command line, "" of one that has none; `age_s`: since it began, 0 where that is not known.
    `leads`: the leader of its session is in the foreground of its terminal, or it has none. `mapped`: descriptor "mapped".
    """

    pid: int
    name: str
    inner: int = 0
    parent: int = 0
    command: str = ""
    age_s: float = 0.0
    tracers: Mapping[int, int] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    leads: bool = True
    files: tuple[OpenFile, ...] = ()
    mapped: tuple[OpenFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A line of mountinfo."""

    number: int
    device: tuple[int, int]
    kind: str
    point: str


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A line of net/tcp. `state` as the kernel numbers it; `inode` 0: no process has it."""

    port: int
    state: int
    inode: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A container as it was while this was read. `host`: the namespaces of the reader."""

    init: int
    tasks: tuple[Task, ...]
    mounts: tuple[Mount, ...] = ()
    connections: tuple[Connection, ...] = ()
    host: Mapping[str, str] = field(default_factory=dict)

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(task.pid for task in self.tasks)


def read(init: int, pids: Iterable[int], proc: Path = PROC) -> Snapshot:
    """`pids`: all tasks of the container, by the host's numbers, init among them."""
    return Snapshot(
        init=init,
        tasks=tuple(task for pid in sorted(set(pids)) if (task := _task(proc, pid)) is not None),
        mounts=tuple(_mounts(text(proc / str(init) / "mountinfo"))),
        connections=tuple(
            found for name in ("tcp", "tcp6") for found in _connections(text(proc / str(init) / "net" / name))
        ),
        host=_namespaces(proc / "self"),
    )


def text(path: Path) -> str:
    """ "" of what is not there (any more)."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _age_s(proc: Path, fields: list[str]) -> float:
    """Of the fields of its stat from the third on: the 22nd is its start, in ticks since the host's own."""
    up = text(proc / "uptime").split()
    if not up or len(fields) < 20:
        return 0.0
    return max(0.0, float(up[0]) - int(fields[19]) / os.sysconf("SC_CLK_TCK"))


def _task(proc: Path, pid: int) -> Task | None:
    directory = proc / str(pid)
    status = _status(directory / "status")
    if not status:
        return None
    fields = text(directory / "stat").rpartition(")")[2].split()
    return Task(
        pid=pid,
        name=status.get("Name", ""),
        inner=int((status.get("NSpid") or "0").split()[-1]),
        parent=int(status.get("PPid", "0")),
        command=text(directory / "cmdline").replace("\0", " ").strip(),
        age_s=_age_s(proc, fields),
        tracers=dict(_tracers(directory)),
        namespaces=_namespaces(directory),
        leads=len(fields) < 6 or fields[3] == fields[5],  # session and tpgid: criu/tty.c, tty_verify_ctty
        files=tuple(_files(directory)),
        mapped=tuple(_mapped(directory)),
    )


def _status(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in text(path).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _tracers(directory: Path) -> Iterator[tuple[int, int]]:
    try:
        threads = sorted(int(each.name) for each in (directory / "task").iterdir())
    except OSError:
        return
    for thread in threads:
        tracer = int(_status(directory / "task" / str(thread) / "status").get("TracerPid", "0"))
        if tracer:
            yield thread, tracer


def _namespaces(directory: Path) -> dict[str, str]:
    found = {}
    for name in NAMESPACES:
        try:
            found[name] = os.readlink(directory / "ns" / name)  # noqa: PTH115  "pid:[...]" is no path
        except OSError:
            continue  # the kernel has no such kind, or the task has ended
    return found


def _files(directory: Path) -> Iterator[OpenFile]:
    try:
        names = sorted(os.listdir(directory / "fd"), key=int)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        link = directory / "fd" / name
        try:
            target = os.readlink(link)  # noqa: PTH115
        except OSError:
            continue  # closed meanwhile
        yield _opened(link, name, target)


def _mapped(directory: Path) -> Iterator[OpenFile]:
    """One of each file."""
    seen: set[str] = set()
    for line in text(directory / "maps").splitlines():
        fields = line.split(None, 5)
        path = fields[5] if len(fields) == 6 else ""
        telling = path.endswith(_DELETED) or path.startswith(_TELLING)
        if not telling or path in seen:
            continue
        seen.add(path)
        first, _, last = fields[0].partition("-")
        yield _opened(directory / "map_files" / f"{int(first, 16):x}-{int(last, 16):x}", "mapped", path)


def _opened(link: Path, descriptor: str, target: str) -> OpenFile:
    try:
        status = link.stat()
    except OSError:  # gone, or of a recorded tree, where only the link's text is known
        return OpenFile(descriptor=descriptor, target=target)
    kind = next((kind for test, kind in _KINDS if test(status.st_mode)), "")
    return OpenFile(
        descriptor=descriptor,
        target=target,
        kind=kind,
        device=(os.major(status.st_dev), os.minor(status.st_dev)),
        number=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        inode=status.st_ino,
        size=status.st_blocks * 512,
        links=status.st_nlink,
        protocol=_protocol(link) if kind == "socket" else "",
        passing=_passing(link) if kind == "socket" else 0,
    )


def _passing(link: Path) -> int:
    return int(_status(link.parent.parent / "fdinfo" / link.name).get("scm_fds", "0"))


def _protocol(link: Path) -> str:
    try:
        return os.getxattr(link, "system.sockprotoname").rstrip(b"\0").decode(errors="replace")
    except OSError:
        return ""


def _mounts(mountinfo: str) -> Iterator[Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        major, _, minor = fields[2].partition(":")
        yield Mount(
            number=int(fields[0]),
            device=(int(major), int(minor)),
            kind=after.split(" ", 1)[0],
            point=mounts.unescape(fields[4]),
        )


def _connections(table: str) -> Iterator[Connection]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        yield Connection(port=int(fields[1].rpartition(":")[2], 16), state=int(fields[3], 16), inode=int(fields[9]))

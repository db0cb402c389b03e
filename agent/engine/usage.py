"""What a container uses now: counters of its cgroup, its network interface and its processes. Read-only, standard library only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.engine import control
from agent.engine.cgroup import Cgroup
from agent.engine.control import Directories

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Counters since the container came to this host, and what is in use now. 0 where no controller counts."""

    unix_ns: int
    cpu_ns: int
    memory_bytes: int  # without the file cache that the kernel can drop at once
    tasks: int
    network_received_bytes: int
    network_sent_bytes: int
    block_read_bytes: int
    block_written_bytes: int


@dataclass(frozen=True, kw_only=True)
class Process:
    """One task of a container. `pid`, `parent` and `user` are the container's own; a parent outside is 0."""

    host_pid: int
    pid: int
    parent: int
    user: int
    threads: int
    resident_bytes: int
    cpu_s: float
    state: str  # one letter: R, S, D, Z, ...
    started_unix_ns: int
    command: str


def oom_events(directories: Directories) -> Path:
    """The file that counts kills; it need not exist."""
    legacy = directories.legacy.get("memory")
    return legacy / "memory.oom_control" if legacy else directories.unified / "memory.events"


def oom_kills(events: Path) -> int:
    """Processes that were killed because the container was at its limit; 0 where nothing counts, or it is gone."""
    return int(control.pairs(control.read(events)).get("oom_kill", "0"))


def read(cgroup: Cgroup, pid: int) -> Usage:
    """`pid`: any process of the container, for its network; 0 without one."""
    directories = cgroup.directories
    received, sent = _network(pid)
    was_read, written = _block(directories)
    pids = directories.legacy.get("pids", directories.unified) / "pids.current"
    return Usage(
        unix_ns=time.time_ns(),
        cpu_ns=_cpu_ns(directories),
        memory_bytes=_memory(directories),
        tasks=int(control.read(pids) or 0) or len(cgroup.procs()),
        network_received_bytes=received,
        network_sent_bytes=sent,
        block_read_bytes=was_read,
        block_written_bytes=written,
    )


def _cpu_ns(directories: Directories) -> int:
    if (legacy := directories.legacy.get("cpuacct")) is not None:
        return int(control.read(legacy / "cpuacct.usage") or 0)
    return int(control.pairs(control.read(directories.unified / "cpu.stat")).get("usage_usec", "0")) * 1000


def _memory(directories: Directories) -> int:
    legacy = directories.legacy.get("memory")
    used = legacy / "memory.usage_in_bytes" if legacy else directories.unified / "memory.current"
    stat = control.pairs(control.read((legacy or directories.unified) / "memory.stat"))
    cache = int(stat.get("total_inactive_file" if legacy else "inactive_file", "0"))
    return max(0, int(control.read(used) or 0) - cache)


def _block(directories: Directories) -> tuple[int, int]:
    if (legacy := directories.legacy.get("blkio")) is not None:
        lines = control.read(legacy / "blkio.throttle.io_service_bytes").splitlines()
        words = [line.split() for line in lines]
        return (
            sum(int(word[2]) for word in words if word[1:2] == ["Read"]),
            sum(int(word[2]) for word in words if word[1:2] == ["Write"]),
        )
    fields = [field.partition("=") for field in control.read(directories.unified / "io.stat").split()]
    return (
        sum(int(value) for name, _, value in fields if name == "rbytes"),
        sum(int(value) for name, _, value in fields if name == "wbytes"),
    )


def _network(pid: int) -> tuple[int, int]:
    """(received, sent) of every interface but lo, as /proc/PID/net/dev shows the namespace of `pid`."""
    received = sent = 0
    for line in _text(Path(f"/proc/{pid}/net/dev")).splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            fields = numbers.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def processes(pids: Iterable[int], ids_base: int) -> list[Process]:
    """By the container's pid. One that ends meanwhile is left out."""
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    raw = [one for pid in pids if (one := _process(pid, ids_base, boot_ns)) is not None]
    inside = {one.host_pid: one.pid for one in raw}
    return sorted(
        (Process(**{**vars(one), "parent": inside.get(one.parent, 0)}) for one in raw), key=lambda one: one.pid
    )


def _process(pid: int, ids_base: int, boot_ns: int) -> Process | None:
    status = dict(line.split(":\t", 1) for line in _text(Path(f"/proc/{pid}/status")).splitlines() if ":\t" in line)
    stat = _text(Path(f"/proc/{pid}/stat"))
    if not status or not stat:
        return None
    fields = stat.rpartition(")")[2].split()  # from the third on
    command = _text(Path(f"/proc/{pid}/cmdline")).rstrip("\0").replace("\0", " ")
    return Process(
        host_pid=pid,
        pid=int(status.get("NSpid", str(pid)).split()[-1]),
        parent=int(status["PPid"]),
        user=int(status["Uid"].split()[1]) - ids_base,
        threads=int(fields[17]),
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        state=fields[0],
        started_unix_ns=boot_ns + int(fields[19]) * 1_000_000_000 // _TICKS,
        command=command or f"[{status['Name']}]",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # it has ended

"""What a lab holds at one instant, as numbers: taken before and after many moves, a difference is a leak."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.engine import events
from migrate.lab import cgroups, down, network, nodes, processes, provision
from migrate.lab.layout import NETNS_DIR, Lab, Role

# Opened while CRIU restores (agent/criu/sysctl.py), and must be closed again.
_USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One thing that is counted. `allowed`: how much more of it, after all moves, is not a leak; None: it may grow."""

    name: str
    allowed: int | None
    why: str = ""  # where something is allowed


def count(lab: Lab, init_pid: int) -> dict[Kind, int]:
    """Look at both hosts, the controller and the container whose init has `init_pid`. Changes nothing. Needs root."""
    found: dict[Kind, int] = {}

    def put(name: str, value: int, allowed: int | None = 0, why: str = "") -> None:
        found[Kind(name=name, allowed=allowed, why=why)] = value

    members = down.members(lab)
    put("processes of the lab", len(members))
    monitors = [pid for pid, process in members.items() if "/agent/monitor.py" in process.command]
    put("monitors", len(monitors))
    put("descriptors of the monitors", _descriptors(monitors))
    put("threads of the monitors", _threads(monitors))
    for node, state in nodes.states(lab.state_dir).items():
        for program in state.programs:
            if program.name == "sshd":
                sessions = [pid for pid in members if _is_sshd_of(lab, node, pid, members[pid].command)]
                put(f"{node}: sshd and its sessions", len(sessions))
                continue
            pids = [program.pid]
            put(f"{node}: descriptors of the {program.name}", _descriptors(pids), 2, "calls under way")
            put(f"{node}: threads of the {program.name}", _threads(pids), 4, "gRPC's pool grows up to its limit")
            put(
                f"{node}: RSS of the {program.name}, KiB",
                _rss_kib(program.pid),
                8192,
                "arenas and caches, full after some 20 moves",
            )
    for node, pid in nodes.supervisors(lab.state_dir).items():
        put(f"{node}: mounts", _mounts(pid))
        put(f"{node}: tmpfs bytes of /run", _tmpfs_bytes(pid), 16 << 10, "a monitor's log")
        if lab.node(node).role is Role.HOST:
            net = f"--net={lab.netns_path(node)}"
            put(f"{node}: network devices", len(json.loads(_run("nsenter", net, "ip", "-j", "link"))))
            put(f"{node}: bridge entries by hand", _permanent_entries(net))
            put(f"{node}: neighbour entries", len(json.loads(_run("nsenter", net, "ip", "-j", "neigh") or "[]")), 2)
            put(f"{node}: lines of nft rules", len(_run("nsenter", net, "nft", "list", "ruleset").splitlines()))
        put(f"{node}: files below {provision.RUN}", _files(Path(f"/proc/{pid}/root{provision.RUN}")))
        kept = lab.node_dir(node) / "var"
        if node == "controller":
            put(f"{node}: files below {provision.STATE}", _files(kept), 1, "SQLite's -shm")
            continue
        ended = kept / "moves"
        put(f"{node}: files of ended moves", _files(ended), None, "one a move, forgotten after 7 days")
        put(f"{node}: other files below {provision.STATE}", _files(kept) - _files(ended))
        told = kept / "events.jsonl"
        put(f"{node}: lines of events above their bound", max(_lines(told) - 2 * events.KEPT, 0))
        size = told.stat().st_size if told.exists() else 0
        put(f"{node}: other bytes there", _bytes(kept) - _bytes(ended) - size, 64 << 10, "the container's own log")
    put("network namespaces", len(network.names(lab.prefix)))
    ours = (*down.mounts_below(lab.state_dir), *down.mounts_starting(f"{NETNS_DIR}/{lab.prefix}-"))
    put("mounts in the machine's own namespace", len(ours))
    put("vm.unprivileged_userfaultfd", int(_USERFAULTFD.read_text()) if _USERFAULTFD.exists() else 0)
    put("cgroups", sum(1 for _ in cgroups.groups(lab.label)))
    put("the container: processes", _container_processes(init_pid))
    put("the container: descriptors", _descriptors([init_pid]))
    put("the container: threads", _threads([init_pid]))
    put("the container: mounts", _mounts(init_pid))
    inside = ("nsenter", f"--net=/proc/{init_pid}/ns/net")
    put("the container: lines of nft rules", len(_run(*inside, "nft", "list", "ruleset").splitlines()))
    put("the container: network devices", len(json.loads(_run(*inside, "ip", "-j", "link"))))
    for table, rows in _rows(lab.node_dir("controller") / "var/coordinator.db").items():
        grows = table in ("journal", "migrations")
        put(f"coordinator: rows of {table}", rows, None if grows else 0, "the history of each move" if grows else "")
    return found


def waiting_moves(lab: Lab) -> list[str]:
    """Moves whose directory is still on a host: their memory is being filled in, or their stage has not gone yet."""
    return [
        f"{node}: {path.name}"
        for node, pid in nodes.supervisors(lab.state_dir).items()
        for path in Path(f"/proc/{pid}/root{provision.RUN}/moves").glob("*")
    ]


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _sum(pids: Iterable[int], of: Callable[[int], int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += of(pid)
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    return total


def _descriptors(pids: Iterable[int]) -> int:
    return _sum(pids, lambda pid: len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208  cheaper, and a number is all we want


def _threads(pids: Iterable[int]) -> int:
    return _sum(pids, lambda pid: len(os.listdir(f"/proc/{pid}/task")))  # noqa: PTH208


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _mounts(pid: int) -> int:
    return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())


def _tmpfs_bytes(pid: int) -> int:
    usage = os.statvfs(f"/proc/{pid}/root/run")
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def _permanent_entries(net: str) -> int:
    """Entries that somebody wrote; those that the bridge learned come and go by themselves."""
    entries = json.loads(_run("nsenter", net, "bridge", "-j", "fdb") or "[]")
    return sum(1 for entry in entries if entry.get("state") in ("static", "permanent"))


def _files(directory: Path) -> int:
    return sum(len(files) + len(directories) for _, directories, files in os.walk(directory))


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def _is_sshd_of(lab: Lab, node: str, pid: int, command: str) -> bool:
    try:
        ours = Path(f"/proc/{pid}/ns/net").stat().st_ino == lab.netns_path(node).stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return False
    return ours and (command.startswith("sshd") or "/dial -c" in command)


def _container_processes(init_pid: int) -> int:
    space = processes.namespace(init_pid, "pid")
    return sum(1 for pid in processes.everybody() if processes.namespace(pid, "pid") == space)


def _rows(database: Path) -> dict[str, int]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # names from the schema itself
            for name in sorted(tables)
            if not name.startswith("sqlite_")
        }
    finally:
        connection.close()

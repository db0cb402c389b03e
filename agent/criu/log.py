"""CRIU's log: its first real error, what is around it, what it means and what to do about it. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CONTEXT_LINES = 10
# Said in every run without CAP_SYS_RESOURCE, of kernels without a module, of an interface that brings its own address: harmless.
_HARMLESS = re.compile(
    r"Can't setup RLIMIT_NOFILE|ip(6)?tables(-legacy)?-(save|restore)|ipv[46]: address already assigned|cgroupd: recv req error"
    r"|Can't make a server listen|pidfd_store|Unable to load cpuinfo",
    re.IGNORECASE,
)
_ERROR = re.compile(r"\bError\b")
_WHERE = re.compile(r"^\(\d+\.\d+\)\s*(?:\d+:\s*)?(?:pie: \d+: )?Error \([^)]*\):\s*")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`error`: CRIU's line without time and place; `meaning` and `remedy`: "" when the error is not a known one."""

    error: str
    meaning: str = ""
    remedy: str = ""
    context: str = ""


# (what the line says, what it means, what to do). First match wins.
KNOWN: tuple[tuple[str, str, str], ...] = (
    (r"io_uring", "the container uses io_uring, which CRIU cannot save", "switch io_uring off in the program's configuration"),
    (r"external stream unix|half of stream unix", "a process holds a unix stream socket whose other end is outside the container",
     "close that connection (often a mounted /run/... socket) and move again"),
    (r"In-flight|in flight", "a client was in the middle of connecting", "move again"),
    (r"Can't dump ghost file", "a deleted file that is still open is larger than the limit", "let the program reopen or truncate the file"),
    (r"OOM storing pipe", "more than 1024 pipes: CRIU's built-in limit", "reduce the number of open pipes"),
    (r"Can't dump nested|nested \w+ namespace", "a process made namespaces of its own inside the container", "CRIU cannot save those"),
    (r"inotify|fanotify|Can't dump that handle", "a file watch on the overlay file system", "stop the watcher for the time of the move"),
    (r"userfaultfd descriptor: Operation not permitted", "this kernel forbids userfaultfd in user namespaces",
     "sysctl vm.unprivileged_userfaultfd=1, or plain restore"),
    (r"Unexpected rt vDSO", "this CRIU is too old for the running kernel", "make setup brings one that fits"),
    (r"Can't get 1:(16|34) opt", "CRIU 4.1 on a kernel >= 6.16", "CRIU >= 4.2 is needed here: make setup"),
    (r"seized|ptrace.*Operation not permitted|Unable to interrupt task", "a process is already traced by a debugger",
     "detach strace or gdb"),
    (r"No space left on device", "a disk or tmpfs is full", "make room on it and move again"),
    (r"Cannot allocate memory", "not enough memory", "free memory on this host or raise the container's limit"),
    (r"bad (size|mode|build-ID)|has bad", "a file of the container differs from the one that was open on the source",
     "compare the layers of both hosts: migrate images"),
    (r"Pid \d+ do(es)? not match|task .* already exists", "a process id is taken", "nothing: report this, containers have their own ids"),
    (r"move_mount_set_group|mnt-v2", "the kernel lacks MOVE_MOUNT_SET_GROUP", "Linux 5.15 or newer is needed"),
    (r"netdev|Can't find link|link .* not found", "the network interface for the container is missing", "migrate doctor, then move again"),
    (r"nft|nftables", "CRIU could not set its network lock", "install nftables, check `nft list tables`"),
)  # fmt: skip


def first_error(log: Path) -> Finding | None:
    """The first error of `log` that matters, or None when it cannot be read or has none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for number, line in enumerate(lines):
        if _ERROR.search(line) and not _HARMLESS.search(line):
            context = "\n".join(lines[max(0, number - CONTEXT_LINES) : number + CONTEXT_LINES + 1])
            return explain(_WHERE.sub("", line).strip(), context)
    return None


def explain(error: str, context: str = "") -> Finding:
    """Look `error` up among the known ones."""
    for pattern, meaning, remedy in KNOWN:
        if re.search(pattern, error, re.IGNORECASE):
            return Finding(error=error, meaning=meaning, remedy=remedy, context=context)
    return Finding(error=error, context=context)

"""Undo by hand what CRIU leaves on tasks when it dies before its own clean-up: sockets in repair mode, the network lock.

A socket in repair mode fails its reads with EPERM and drops what arrives; the lock is an nftables table named CRIU-... in the
container's network namespace. Standard library and agent.linux only.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from agent.linux import process

_TCP_REPAIR = 19  # linux/tcp.h
_LIMIT_S = 10.0


def free_after_criu(init_pid: int, pids: Iterable[int]) -> int:
    """Sockets of `pids` leave repair mode, the lock in the namespace of `init_pid` goes. Returns the number of sockets mended."""
    mended = sum(_end_repair(pid) for pid in pids)
    _drop_lock(init_pid)
    return mended


def _end_repair(pid: int) -> int:
    mended = 0
    try:
        pidfd = os.pidfd_open(pid)
        names = [path.name for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return 0  # gone in the meantime
    try:
        for name in names:
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):  # noqa: PTH115  no path
                    continue
                with socket.socket(fileno=process.pidfd_getfd(pidfd, int(name))) as ours:
                    if (
                        ours.family in (socket.AF_INET, socket.AF_INET6)
                        and ours.type == socket.SOCK_STREAM
                        and ours.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR)
                    ):
                        ours.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
                        mended += 1
            except OSError:
                continue  # closed in the meantime, or not a TCP socket after all
    finally:
        os.close(pidfd)
    return mended


def _drop_lock(init_pid: int) -> None:
    enter = ["nsenter", f"--net=/proc/{init_pid}/ns/net", "nft"]
    tables = subprocess.run([*enter, "list", "tables"], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    for line in tables.stdout.splitlines():  # "table inet CRIU-1a2b"
        if "CRIU-" in line:
            subprocess.run([*enter, "delete", *line.split()], capture_output=True, timeout=_LIMIT_S, check=False)

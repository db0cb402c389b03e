"""Sockets that CRIU cannot save: of protocols that it does not know, with an other end outside, half way to a connection."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from agent.scan import unix_diag
from agent.scan.finding import Blocker
from agent.scan.place import of_file
from agent.scan.procfs import OpenFile, Snapshot, Task

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
DIAG_LIMIT_S = 20.0
_SAVED = ("TCP", "UDP", "UDP-Lite", "RAW", "PACKET", "NETLINK", "UNIX", "PING")
_ESTABLISHED, _SYN_RECV, _LISTEN = 1, 3, 10  # include/net/tcp_states.h


def check(seen: Snapshot, unix: Sequence[Mapping[str, object]] | None) -> Iterator[Blocker]:
    """`unix`: as unix_sockets() says; None: it could not be asked."""
    peers = {str(each["inode"]): str(each["peer"] or "") for each in unix or ()}
    sockets = [file for task in seen.tasks for file in task.files if file.kind == "socket"]
    inside = {str(file.inode) for file in sockets}
    passing = any(file.passing for file in sockets)
    listeners = {each.inode: each.port for each in seen.connections if each.state == _LISTEN}
    waiting = Counter(
        each.port
        for each in seen.connections
        if each.state == _SYN_RECV or (each.state == _ESTABLISHED and not each.inode)
    )
    for task in seen.tasks:
        for file in task.files:
            if file.kind != "socket":
                continue
            yield from _protocol(task, file)
            if file.protocol.startswith("UNIX") and unix is not None:
                yield from _unix(task, file, peers, inside, passing=passing)
            if count := waiting.pop(listeners.get(file.inode, -1), 0):
                yield of_file(
                    task,
                    file,
                    "half-open",
                    f"{count} connection{'s' if count > 1 else ''} to port {listeners[file.inode]} the program has not accepted: "
                    "CRIU refuses to dump while there is one",
                    "nothing, where the program accepts soon; else see why it does not",
                    warning=True,
                )


def holds_unix(seen: Snapshot) -> bool:
    """Whether it is worth to ask who is connected to whom."""
    return any(file.protocol.startswith("UNIX") for task in seen.tasks for file in task.files)


def unix_sockets(init: int) -> list[dict[str, object]] | None:
    """Those of the container's network namespace; None where the kernel, or a container that has just ended, does not say."""
    argv = [sys.executable, "-I", "-S", unix_diag.__file__, str(PACKAGE_ROOT), str(init)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=DIAG_LIMIT_S, check=True)
    except subprocess.SubprocessError:
        return None
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def _protocol(task: Task, file: OpenFile) -> Iterator[Blocker]:
    name = file.protocol.removesuffix("v6")
    kind = name.partition("-")[0] if name.startswith("UNIX") else name
    if name.startswith("MPTCP"):
        yield of_file(
            task,
            file,
            "mptcp",
            "a socket of Multipath TCP: CRIU cannot save it",
            "switch it off in the program (Go: GODEBUG=multipathtcp=0), or sysctl net.mptcp.enabled=0 in the container",
        )
    elif kind in ("RAW", "PACKET", "PING"):
        yield of_file(
            task,
            file,
            "raw-socket",
            f"a {name} socket: it is moved, what arrives for it while the container stands still is lost",
            "nothing, for a program that asks again (ping, DHCP); end a packet capture first",
            warning=True,
        )
    elif name and kind not in _SAVED:
        yield of_file(
            task,
            file,
            "socket-kind",
            f"a socket of the kind {name}: CRIU knows {', '.join(_SAVED)}",
            "end that program, or let it close the socket",
        )


def _unix(
    task: Task, file: OpenFile, peers: Mapping[str, str], inside: Set[str], *, passing: bool
) -> Iterator[Blocker]:
    """The other end of an accepted connection is in the namespace of whoever connected: who holds it decides. `passing`: descriptors are
    on their way between the container's tasks, and a missing end may be one of them.
    """
    peer = peers.get(str(file.inode))
    if peer is None:
        yield of_file(
            task,
            file,
            "unix-peer",
            "a unix socket that is not of the container's network: it was inherited, or somebody outside has connected to it",
            "close it in the program, or let those outside let go of it",
        )
    elif peer and peer not in inside:
        yield of_file(
            task,
            file,
            "unix-peer",
            "a unix socket is connected to a program outside of the container: half of a connection cannot be moved"
            if not passing
            else "the other end of a unix socket is outside of the container, or on its way through another socket",
            "close that connection (often to a mounted /run/... socket: a log, a database, a container engine) and move again",
            warning=passing,
        )

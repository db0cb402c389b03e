"""Programs that came into a container by exec are ended before it is frozen: no children of its init, CRIU would lose them.

A container in a move takes no new ones (state.why_not_exec). What such a program has started in its own session goes with it; a process
that has left that session becomes init's child and moves on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.errors import WrongState
from agent.linux import process

GRACE_S = 5.0  # between SIGTERM and SIGKILL; what it writes meanwhile is sent in the freeze
KILL_LIMIT_S = 10.0
LOOK_S = 0.02
MOST_SHOWN = 200  # characters of a command line


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A program that came in by exec. `pid`: the container's; `signal`: the last that it got."""

    pid: int
    command: str
    signal: str


@dataclass(frozen=True, kw_only=True)
class _Task:
    pid: int
    parent: int
    session: int


def end(
    init: int,
    pids: Callable[[], Iterable[int]],
    note: Callable[[list[Ended]], None],
    *,
    grace_s: float = GRACE_S,
) -> list[Ended]:
    """SIGTERM and SIGHUP (a shell at a terminal hears only that one), then SIGKILL after the grace; returns when they are gone.

    `pids`: of the container's tasks, now. `note` is given all that were found before any of them gets a signal. Raises WrongState where
    one survives SIGKILL.
    """
    found: dict[int, Ended] = {}
    began = time.monotonic()
    while sessions := _sessions(init, pids()):
        killing = time.monotonic() - began >= grace_s
        new = {leader: _seen(leader) for leader in sessions if leader not in found}
        if killing:
            for leader in sessions:
                old = found.get(leader) or new[leader]
                found[leader] = Ended(pid=old.pid, command=old.command, signal="SIGKILL")
        found = {**new, **found}
        if new or killing:
            note(list(found.values()))
        for leader, members in sessions.items():
            if killing:
                _send(members, signal.SIGKILL)
            elif leader in new:
                _send(members, signal.SIGTERM)
                _send(members, signal.SIGHUP)
        if time.monotonic() - began > grace_s + KILL_LIMIT_S:
            names = ", ".join(f"`{found[leader].command}`" for leader in sessions)
            raise WrongState(
                f"what came in by exec survives SIGKILL for {KILL_LIMIT_S:g} s: {names}",
                hint="it waits for something in the kernel, a disk say; move again when it has gone",
            )
        time.sleep(LOOK_S)
    return list(found.values())


def _sessions(init: int, pids: Iterable[int]) -> dict[int, list[int]]:
    """By program that came in: all tasks of its session."""
    tasks = [task for pid in pids if (task := _task(pid)) is not None]
    here = {task.pid for task in tasks}
    came_in = [task for task in tasks if task.pid != init and task.parent and task.parent not in here]
    return {one.pid: [task.pid for task in tasks if task.session == one.session or task is one] for one in came_in}


def _task(pid: int) -> _Task | None:
    """None for one that is gone, or is dead and only waits for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else _Task(pid=pid, parent=int(fields[1]), session=int(fields[3]))


def _seen(pid: int) -> Ended:
    inner, command = pid, ""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        command = b" ".join(words).decode(errors="replace").strip()[:MOST_SHOWN]
    with contextlib.suppress(OSError):
        inner = process.inner_pid(pid)
    return Ended(pid=inner, command=command or "?", signal="SIGTERM")


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfd = process.pidfd_open(pid)
            try:
                if _task(pid) is not None:
                    process.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)

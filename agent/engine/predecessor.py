"""What an agent that was killed has left half done: monitors that it had told to create, and that have not come to it yet.

Such a monitor still reads its order, mounts the container's root and listens; only then can the next agent find it, to end it. One that
looks too early finds none, settles the container, and the monitor mounts the root afterwards, for nobody. So the next agent begins by
waiting for all monitors of the one before: those that were told nothing end by themselves, as their connections have.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from agent.engine.cgroup import Cgroup
from agent.engine.monitor import NOBODYS
from agent.linux import process

LIMIT_S = 20.0  # a busy host; then they are killed, and what they had mounted is settled like after any dead monitor
_PAUSE_S = 0.005

log = logging.getLogger(__name__)


def await_monitors(cgroup: Cgroup, limit_s: float = LIMIT_S) -> None:
    """Before this agent has monitors of its own, return when each one in `cgroup` (that of monitors) can be found or has ended."""
    deadline = time.monotonic() + limit_s
    while unclaimed := _unclaimed(cgroup):
        if time.monotonic() > deadline:
            log.warning("monitors of an earlier agent have not ended in %.0f s, killing them: %s", limit_s, unclaimed)
            for pid in unclaimed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            deadline += limit_s
        time.sleep(_PAUSE_S)


def _unclaimed(cgroup: Cgroup) -> list[int]:
    """Those that are nobody's, and not the children of a monitor that is somebody's."""
    if not cgroup.freezer.exists():
        return []
    parents: dict[int, int] = {}
    claimed: set[int] = set()
    for pid in cgroup.procs():
        with contextlib.suppress(OSError):  # it has ended
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if NOBODYS.encode() in words:
                parents[pid] = process.parent(pid)
            elif words:  # none: it is ending, as the zygote does, whose children are still nobody's
                claimed.add(pid)
    return [pid for pid in parents if _top(pid, parents) not in claimed]


def _top(pid: int, parents: dict[int, int]) -> int:
    """The first of its ancestors that is none of `parents`."""
    while pid in parents:
        pid = parents[pid]
    return pid

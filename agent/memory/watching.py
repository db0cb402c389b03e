"""Which tracker a process gets: the kernel's way that the host was found to have, and the shadow where that does not serve."""

from __future__ import annotations

from collections.abc import Callable

from agent.memory.shadow import ShadowTracker
from agent.memory.softdirty import SoftDirtyTracker
from agent.memory.tracker import Tracker
from agent.memory.userfault import UserfaultTracker
from agent.memory.ways import SHADOW

WAYS: dict[str, Callable[[int], Tracker]] = {
    "userfaultfd": UserfaultTracker.watch,
    "soft-dirty": SoftDirtyTracker.watch,
    SHADOW: ShadowTracker.watch,
}


def watch(way: str, pid: int) -> tuple[Tracker, str]:
    """Begin to watch `pid` by `way`, a key of WAYS; (tracker, "" or why it is the shadow instead). Raises OSError: it is gone."""
    try:
        return WAYS[way](pid), ""
    except OSError as exc:
        return ShadowTracker.watch(pid), str(exc)

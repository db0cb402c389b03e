"""Everything that a look at a running container says against moving it. Reads /proc, changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.scan import descriptors, procfs, sockets, tasks, tmpfs, watches
from agent.scan.finding import Blocker


def scan(name: str, init: int, pids: Iterable[int], *, ghost_limit: int, ahead: Collection[str]) -> list[Blocker]:
    """`init` and `pids` by the host's numbers; `ghost_limit`: bytes of a deleted file that CRIU still carries; `ahead`: mount points of
    tmpfs whose files are sent ahead. Empty for a container without a task.
    """
    if not init:
        return []
    seen = procfs.read(init, pids)
    mine = next((task.namespaces.get("net") for task in seen.tasks if task.pid == init), "")
    own_network = mine != seen.host.get("net")
    unix = sockets.unix_sockets(init) if own_network and sockets.holds_unix(seen) else None
    return [
        *tasks.check(seen),
        *descriptors.check(seen, ghost_limit),
        *watches.check(seen),
        *sockets.check(seen, unix),
        *tmpfs.check(name, tmpfs.sizes(init), ahead),
    ]

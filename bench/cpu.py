"""CPU time of a move, from the version 2 cgroups: what has ended by now is counted too.

The engine's side is what runs on the lab's nodes: agents, monitors, transfer processes, CRIU, ssh and sshd of both hosts, and
the coordinator. By hand it is CRIU, tar, ssh, sshd and the shells of both hosts. Neither counts the container, nor whoever
typed the command.
"""

from __future__ import annotations

import time
from pathlib import Path

from migrate.lab import cgroups
from migrate.lab.layout import Lab, LabError

HAND = "by-hand"
HAND_CONTAINER = "by-hand-container"
_SETTLED_CORES = 0.05  # agents that wait use less
_SETTLE_LIMIT_S = 120.0


def group(lab: Lab, name: str) -> Path:
    """The group of a node, HAND or HAND_CONTAINER. Raises LabError where there is no version 2 hierarchy."""
    for hierarchy in cgroups.hierarchies():
        if hierarchy.version == 2:
            return hierarchy.path / lab.node_cgroup(name)
    raise LabError("no version 2 cgroup hierarchy is mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")


def create(lab: Lab) -> None:
    """Make the groups of what is done by hand; the lab removes them with its own."""
    for name in (HAND, HAND_CONTAINER):
        group(lab, name).mkdir(exist_ok=True)


def used_s(lab: Lab, *names: str) -> float:
    """Seconds since these groups were made."""
    return sum(_usage_us(group(lab, name)) for name in names) / 1e6


def settled_s(lab: Lab, *names: str) -> float:
    """As used_s, after the last work of a move, such as filling memory lazily, is done; waits at most two minutes."""
    deadline = time.monotonic() + _SETTLE_LIMIT_S
    before = used_s(lab, *names)
    while True:
        time.sleep(0.5)
        after = used_s(lab, *names)
        if after - before < 0.5 * _SETTLED_CORES or time.monotonic() > deadline:
            return after
        before = after


def _usage_us(path: Path) -> int:
    fields = dict(line.split() for line in (path / "cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"])

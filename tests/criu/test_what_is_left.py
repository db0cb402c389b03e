"""After all the moves of this tier, refused, cancelled and done: what is on the hosts."""

from __future__ import annotations

import time

import pytest

from migrate.lab import observe
from tests.criu.moving_lab import MovingLab

pytestmark = pytest.mark.criu


def test_nothing_is_left(fleet: MovingLab) -> None:
    """No process, mount, cgroup, link, nft table, tmpfs byte or descriptor more than before the first container, on any host."""
    for container in fleet.client.containers(all=True):
        fleet.client.remove(container.name, force=True)
    deadline = time.monotonic() + 15
    while (left := observe.differences(fleet.idle, observe.snapshot(fleet.lab.prefix))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    for host in ("host1", "host2"):
        assert list((fleet.lab.node_dir(host) / "var/containers").iterdir()) == []

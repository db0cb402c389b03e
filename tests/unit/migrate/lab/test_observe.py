"""Comparing what a lab holds before and after: every kind of leftover is noticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from migrate.lab import observe
from migrate.lab.observe import NodeView, Snapshot

pytestmark = pytest.mark.unit

VIEW = NodeView(mounts=("/run/migrate",), links=("lo",), nft_tables=(), run_bytes=8192, descriptors={"agent": 20})
BEFORE = Snapshot(
    processes=("10 sshd", "11 agent"), netns=("x-host1",), mounts=(), cgroups=(), paths=(), nodes={"host1": VIEW}
)


def test_same_is_no_difference() -> None:
    """New pids of the same programs, and a little growth, are nothing."""
    view = replace(VIEW, run_bytes=9000, descriptors={"agent": 22})
    after = replace(BEFORE, processes=("20 sshd", "21 agent"), nodes={"host1": view})
    assert observe.differences(BEFORE, after) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"processes": ("10 sshd", "11 agent", "12 agent")}, "12 agent"),
        ({"netns": ("x-host1", "x-host2")}, "x-host2"),
        ({"mounts": ("/var/lib/x",)}, "/var/lib/x"),
        ({"cgroups": ("/sys/fs/cgroup/memory/migrate-lab/host1/0123",)}, "host1/0123"),
    ],
)
def test_leftover_of_the_machine_is_named(change: dict[str, Any], named: str) -> None:
    """A process more of the same command, a namespace, a mount, a container's cgroup: each is a line that names it."""
    (line,) = observe.differences(BEFORE, replace(BEFORE, **change))
    assert named in line


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mounts": ("/run/migrate", "/run/migrate/moves/1/stage")}, "moves/1/stage"),
        ({"links": ("lo", "veth7")}, "veth7"),
        ({"nft_tables": ("table inet CRIU-5",)}, "CRIU-5"),
        ({"run_bytes": 8192 + (1 << 20)}, "1048576 bytes"),
        ({"descriptors": {"agent": 40}}, "40 descriptors"),
    ],
)
def test_leftover_inside_a_host_is_named(change: dict[str, Any], named: str) -> None:
    """A mount, a device, a firewall table, memory on /run and descriptors that leaked: each is a line that names it."""
    (line,) = observe.differences(BEFORE, replace(BEFORE, nodes={"host1": replace(VIEW, **change)}))
    assert line.startswith("host1 ")
    assert named in line


@pytest.mark.parametrize("group", ["migrate-lab", "migrate-lab-demo/host1", "migrate-lab/host2/monitors"])
def test_groups_that_belong_to_the_host_are_no_leftover(group: str) -> None:
    """What an agent makes once and uses for every container is the host's."""
    after = replace(BEFORE, cgroups=(f"/sys/fs/cgroup/memory/{group}",))
    assert observe.differences(BEFORE, after) == []


def test_clean_means_nothing_at_all() -> None:
    """One leftover of any kind is not clean, and is described."""
    nothing = Snapshot(processes=(), netns=(), mounts=(), cgroups=(), paths=(), nodes={})
    assert nothing.clean
    assert nothing.describe() == []
    for name in ("processes", "netns", "mounts", "cgroups", "paths"):
        left = replace(nothing, **{name: ("thing",)})  # type: ignore[arg-type]
        assert not left.clean
        assert left.describe() == [f"{name}: thing"]

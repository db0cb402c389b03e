"""Reading where the cgroup hierarchies are."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrate.lab import cgroups
from migrate.lab.cgroups import Hierarchy

pytestmark = pytest.mark.unit

HYBRID = """\
24 1 0:22 / /sys rw,relatime - sysfs sysfs rw
31 24 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
55 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hybrid_machine_has_both() -> None:
    """v1 and v2 are found, each place once even when it is mounted over."""
    assert cgroups.parse(HYBRID) == [
        Hierarchy(path=Path("/sys/fs/cgroup/memory"), version=1),
        Hierarchy(path=Path("/sys/fs/cgroup/unified"), version=2),
    ]


def test_unified_machine_has_one() -> None:
    """With v2 alone the hierarchy is /sys/fs/cgroup itself."""
    assert cgroups.parse(UNIFIED) == [Hierarchy(path=Path("/sys/fs/cgroup"), version=2)]


def test_controllers_are_handed_down_where_they_exist(tmp_path: Path) -> None:
    """Only what the parent offers and has not enabled yet is written; rdma is not ours to touch."""
    (tmp_path / "cgroup.controllers").write_text("rdma cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    assert cgroups._enable(tmp_path) == []
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"

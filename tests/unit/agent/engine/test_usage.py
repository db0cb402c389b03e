"""Counters read from control files as the kernel's documentation shows them, for the version that this machine may lack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engine import usage
from agent.engine.cgroup import Cgroup, Hierarchies

pytestmark = pytest.mark.unit

V2 = {
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
    "memory.current": "5000\n",
    "memory.stat": "anon 3000\nfile 2000\ninactive_file 1200\nactive_file 800\n",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\noom_group_kill 0\n",
    "pids.current": "3\n",
    "io.stat": "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353\n8:0 rbytes=800 wbytes=496 rios=2 wios=1\n",
}
V1 = {
    "cpuacct": {"cpuacct.usage": "1500000\n"},
    "memory": {
        "memory.usage_in_bytes": "5000\n",
        "memory.stat": "inactive_file 7\ntotal_inactive_file 1200\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
    "pids": {"pids.current": "3\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes": "8:16 Read 1460000\n8:16 Write 314774000\n8:16 Sync 1\n8:16 Total 316234000\nTotal 316234000\n"
    },
}


def version_2(tmp_path: Path) -> Cgroup:
    directory = tmp_path / "fleet/c1"
    directory.mkdir(parents=True)
    for name, text in V2.items():
        (directory / name).write_text(text)
    return Cgroup("fleet", "c1", Hierarchies(unified=tmp_path))


def version_1(tmp_path: Path) -> Cgroup:
    for controller, files in V1.items():
        directory = tmp_path / controller / "fleet/c1"
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text)
    legacy = tuple(((controller,), tmp_path / controller) for controller in V1)
    return Cgroup("fleet", "c1", Hierarchies(unified=tmp_path / "unified", legacy=legacy))


@pytest.mark.parametrize("make", [version_1, version_2])
def test_both_versions_count_the_same(tmp_path: Path, make) -> None:
    """Processor time in nanoseconds, memory without cache that can go, disks added up, processes, kills."""
    cgroup = make(tmp_path)
    used = usage.read(cgroup, 0)
    assert (used.cpu_ns, used.memory_bytes, used.tasks) == (1_500_000, 3800, 3)
    assert (used.block_read_bytes, used.block_written_bytes) == (1_460_000, 314_774_000)
    assert usage.oom_kills(usage.oom_events(cgroup.directories)) == 2


def test_where_nothing_counts_there_is_zero(tmp_path: Path) -> None:
    """No controller, or a cgroup that is gone: no error."""
    cgroup = Cgroup("fleet", "c1", Hierarchies(unified=tmp_path))
    used = usage.read(cgroup, 0)
    assert (used.cpu_ns, used.memory_bytes, used.tasks, used.block_read_bytes) == (0, 0, 0, 0)
    assert usage.oom_kills(usage.oom_events(cgroup.directories)) == 0


def test_processes_are_those_that_live() -> None:
    """This one, with the ids of its own world; one that is gone is left out."""
    (found,) = usage.processes([os.getpid(), (1 << 22) + 1], ids_base=0)
    assert (found.host_pid, found.parent, found.user) == (os.getpid(), 0, os.geteuid())
    assert found.resident_bytes > 1 << 20
    assert "python" in found.command

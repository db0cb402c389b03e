"""What a Cgroup promises, on this machine's own hierarchies: as they are, and with only the version 2 one."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine import disk
from agent.engine.cgroup import Cgroup, probe
from agent.engine.limits import controllers
from agent.engine.spec import Limits
from agent.errors import AgentError, Unsupported

pytestmark = [pytest.mark.contract, pytest.mark.needs("privileges", "cgroup", "cgroup-freezer")]

PARENT = f"heng-contract-{os.getpid()}"


@pytest.fixture(params=["machine", "version 2 only"])
def cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    hierarchies = probe()
    if request.param == "version 2 only":
        hierarchies = dataclasses.replace(hierarchies, legacy=())
    cgroup = Cgroup(PARENT, "c1", hierarchies)
    yield cgroup
    cgroup.kill()
    cgroup.wait_empty(5)
    cgroup.remove()
    Cgroup("", PARENT, hierarchies).remove()


@pytest.fixture
def sleeper(cgroup: Cgroup) -> Iterator[subprocess.Popen[bytes]]:
    """A process that counts, inside the cgroup."""
    cgroup.create()
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    cgroup.add(process.pid)
    yield process
    process.kill()
    process.wait()


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_creating_twice_is_once(cgroup: Cgroup) -> None:
    """create() is idempotent, and every directory that tasks must enter exists after it."""
    cgroup.create(Limits())
    cgroup.create(Limits())
    assert all((directory / "cgroup.procs").exists() for directory in cgroup.dirs)
    assert cgroup.freezer == cgroup.dirs[-1]
    assert cgroup.procs() == []
    assert not cgroup.populated()


def test_added_process_is_in_every_hierarchy(cgroup: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    """add() moves it everywhere; criu_roots() are the paths that the kernel shows for it."""
    assert cgroup.procs() == [sleeper.pid]
    assert cgroup.populated()
    with open(f"/proc/{sleeper.pid}/cgroup") as file:
        shown = {name: line.strip().split(":", 2)[2] for line in file for name in line.split(":", 2)[1].split(",")}
    assert dict(cgroup.criu_roots()).items() <= shown.items()


def test_frozen_tasks_do_nothing_until_thawed(cgroup: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    """After freeze(True) returns no cycle is spent; after freeze(False) it goes on."""
    assert cgroup.freeze(True) < 5
    assert cgroup.frozen()
    stopped_at = cpu_ticks(sleeper.pid)
    time.sleep(0.2)
    assert cpu_ticks(sleeper.pid) == stopped_at
    cgroup.freeze(False)
    assert not cgroup.frozen()
    deadline = time.monotonic() + 5
    while cpu_ticks(sleeper.pid) == stopped_at:
        assert time.monotonic() < deadline


def test_kill_ends_frozen_tasks_in_nested_cgroups(cgroup: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    """kill() reaches what the container nested and what is frozen; remove() takes the nested directories too."""
    inner = cgroup.freezer / "inner" / "deeper"
    inner.mkdir(parents=True)
    (inner / "cgroup.procs").write_text(str(sleeper.pid))
    assert cgroup.procs() == [sleeper.pid]
    cgroup.freeze(True)
    cgroup.kill()
    assert sleeper.wait(5) == -9
    assert cgroup.wait_empty(5)
    cgroup.remove()
    assert not any(directory.exists() for directory in cgroup.dirs)


def test_a_gone_cgroup_is_quiet(cgroup: Cgroup) -> None:
    """Before create() and after remove() nothing is in it, and ending it is no error."""
    for _ in range(2):
        assert cgroup.procs() == []
        assert not cgroup.populated()
        assert not cgroup.frozen()
        cgroup.kill()
        assert cgroup.wait_empty(1)
        cgroup.remove()
        cgroup.create()
        cgroup.remove()


def test_removing_one_in_use_is_refused(cgroup: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    """A living task keeps its cgroup; the error names the directory."""
    with pytest.raises(AgentError, match=PARENT):
        cgroup.remove(timeout_s=0.1)
    assert cgroup.procs() == [sleeper.pid]


def test_waiting_for_the_end_of_tasks_has_a_limit(cgroup: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    """wait_empty() is False at its limit and True as soon as the last task is dead."""
    assert not cgroup.wait_empty(0.1)
    sleeper.kill()
    assert cgroup.wait_empty(5)


def test_what_a_crash_left_beside_it_is_removed(cgroup: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    """Empty ones by their names; one with a task stays, and so does this one."""
    for directory in cgroup.dirs:
        (directory.parent / "try-1").mkdir()
    cgroup.remove_beside("try-*")
    assert not any((directory.parent / "try-1").exists() for directory in cgroup.dirs)
    cgroup.remove_beside("c*")
    assert cgroup.procs() == [sleeper.pid]


@pytest.mark.parametrize(
    "wanted",
    [
        Limits(memory_bytes=64 << 20),
        Limits(memory_reservation_bytes=32 << 20),
        Limits(cpus=0.5),
        Limits(cpu_shares=100),
        Limits(cpuset_cpus=str(min(os.sched_getaffinity(0)))),
        Limits(pids=10),
        Limits(blkio_weight=100),
    ],
    ids=lambda limits: ",".join(controllers(limits)),
)
def test_a_limit_is_kept_or_refused_by_name(cgroup: Cgroup, wanted: Limits) -> None:
    """Every limit, set and taken away again; where the controller is missing the error names it."""
    try:
        cgroup.create(wanted)
    except Unsupported as exc:
        assert f"{controllers(wanted).pop()} controller" in exc.message
        return
    cgroup.set_limits(Limits(), wanted)
    cgroup.set_limits(wanted)


# Reads blocks of a file past the page cache until the time is over, eight at once; prints how many.
READER = """
import mmap, os, sys, threading, time
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
until, done = time.monotonic() + 2.0, []
def read(at):
    block = mmap.mmap(-1, 1 << 20)
    while time.monotonic() < until:
        os.preadv(fd, [block], at << 20)
        done.append(at)
        at = (at + 7) % 64
threads = [threading.Thread(target=read, args=(at,)) for at in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(done))
"""


@pytest.mark.needs("sized-layers", "bfq")
def test_a_disk_whose_scheduler_is_bfq_heeds_weights(tmp_path: Path) -> None:
    """Of two that read one disk all the time, a weight of 1000 gets clearly more than one of 50."""
    disk.make(tmp_path, 96 << 20)
    groups = [Cgroup(PARENT, name) for name in ("much", "little")]
    number = disk_number(tmp_path)
    scheduler = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/scheduler")
    before = scheduler.read_text().partition("[")[2].partition("]")[0]
    try:
        scheduler.write_text("bfq")
        (tmp_path / "layer/file").write_bytes(bytes(64 << 20))
        for group, weight in zip(groups, (1000, 50), strict=True):
            group.create(Limits(blkio_weight=weight))
        readers = []
        for group in groups:
            held = [sys.executable, "-c", f"import sys; sys.stdin.readline()\n{READER}", str(tmp_path / "layer/file")]
            readers.append(subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            group.add(readers[-1].pid)
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("go\n")
            reader.stdin.flush()
        much, little = (int(reader.communicate(timeout=30)[0]) for reader in readers)
        assert much > 2 * little, (much, little)
    finally:
        for group in groups:
            group.kill()
            group.wait_empty(5)
            group.remove()
        Cgroup("", PARENT).remove()
        scheduler.write_text(before)  # the device is used again
        disk.detach(tmp_path)


def disk_number(directory: Path) -> int:
    return (directory / "layer").stat().st_dev

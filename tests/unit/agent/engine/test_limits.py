"""Limits as values of control files, on trees of plain files; what kernels do with them is tests/system/test_limits.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engine import devices, limits, rlimits
from agent.engine.control import Directories
from agent.engine.spec import DeviceRate, Limits, Ulimit
from agent.errors import InvalidArgument, Unsupported

pytestmark = pytest.mark.unit

V2 = (
    "memory.max", "memory.swap.max", "memory.low", "memory.current", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max", "io.weight",
    "io.max",
)  # fmt: skip
MIB = 1 << 20


@pytest.fixture
def unified(tmp_path: Path) -> Directories:
    for level in (tmp_path / "fleet", tmp_path / "fleet/c1"):
        level.mkdir()
        for name in V2:
            (level / name).touch()
    (tmp_path / "fleet/cpuset.cpus.effective").write_text("0-3\n")
    return Directories(legacy={}, unified=tmp_path / "fleet/c1")


@pytest.mark.parametrize(
    ("shares", "weight"), [(1, 1), (2, 1), (1024, 100), (262144, 10000), (262145, 10000), (512, 59), (2048, 174)]
)
def test_shares_become_the_weights_that_runc_writes(shares: int, weight: int) -> None:
    """Both ends and the default meet; in between runc's curve."""
    assert limits.cpu_weight(shares) == weight


@pytest.mark.parametrize(("given", "weight"), [(10, 1), (1000, 10000), (500, 4950)])
def test_weights_of_disks_become_those_of_version_2(given: int, weight: int) -> None:
    """10 to 1000 is 1 to 10000."""
    assert limits.io_weight(given) == weight


def test_every_limit_of_version_2_has_its_file(unified: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel's documentation of version 2 says them."""
    monkeypatch.setattr(devices, "disk_of", lambda path: os.makedev(8, 16))
    wanted = Limits(
        memory_bytes=64 * MIB,
        memory_swap_bytes=96 * MIB,
        memory_reservation_bytes=32 * MIB,
        cpu_quota_us=5000,
        cpu_period_us=20000,
        cpu_shares=512,
        cpuset_cpus="0,2-3",
        pids=9,
        blkio_weight=500,
        device_rates=(DeviceRate(path="/dev/sdb", what="write_bps", rate=7),),
    )
    limits.apply(unified, wanted)
    directory = unified.unified
    assert {name: (directory / name).read_text() for name in V2} == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "memory.current": "",
        "cpu.max": "5000 20000",
        "cpu.weight": "59",
        "cpuset.cpus": "0,2-3",
        "pids.max": "9",
        "io.weight": "4950",
        "io.max": "8:16 wbps=7",
    }
    assert (directory.parent / "memory.low").read_text() == str(32 * MIB)  # no further than its parent is it protected
    monkeypatch.setattr(devices, "find", lambda path: os.makedev(8, 16))
    limits.apply(unified, Limits(), wanted)
    assert {name: (directory / name).read_text() for name in V2} == {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.low": "0",
        "memory.current": "",
        "cpu.max": "max 100000",
        "cpu.weight": "100",
        "cpuset.cpus": "\n",
        "pids.max": "max",
        "io.weight": "100",
        "io.max": "8:16 wbps=max",
    }


def test_a_restore_is_not_slowed_down(unified: Directories) -> None:
    """Without the quota first; then the quota and nothing else is written."""
    wanted = Limits(cpus=0.05, pids=7)
    limits.apply(unified, limits.unhurried(wanted))
    assert ((unified.unified / "cpu.max").read_text(), (unified.unified / "pids.max").read_text()) == ("", "7")
    (unified.unified / "pids.max").write_text("")
    limits.apply(unified, wanted, limits.unhurried(wanted))
    assert ((unified.unified / "cpu.max").read_text(), (unified.unified / "pids.max").read_text()) == (
        "5000 100000",
        "",
    )


def test_version_2_is_not_asked_for_processors_that_are_not_there(unified: Directories) -> None:
    """It would take them and use others."""
    with pytest.raises(InvalidArgument, match="0-3"):
        limits.apply(unified, Limits(cpuset_cpus="3-4"))


def test_without_a_word_nothing_is_written(unified: Directories) -> None:
    """A container without limits needs no controller."""
    limits.apply(Directories(legacy={}, unified=unified.unified / "absent"), Limits())
    assert limits.controllers(Limits()) == set()


@pytest.mark.parametrize(
    ("wanted", "controller"),
    [
        (Limits(memory_bytes=64 * MIB), "memory"),
        (Limits(memory_reservation_bytes=1), "memory"),
        (Limits(cpus=1), "cpu"),
        (Limits(cpu_shares=9), "cpu"),
        (Limits(cpuset_cpus="0"), "cpuset"),
        (Limits(pids=1), "pids"),
        (Limits(blkio_weight=10), "io"),
        (Limits(device_rates=(DeviceRate(path="/", what="read_bps", rate=1),)), "io"),
    ],
)
def test_a_missing_controller_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Limits, controller: str
) -> None:
    """Never ignored: the error says which controller and what to do."""
    monkeypatch.setattr(devices, "disk_of", lambda path: os.makedev(8, 16))
    with pytest.raises(Unsupported, match=f"{controller} controller") as caught:
        limits.apply(Directories(legacy={}, unified=tmp_path), wanted)
    assert "leave that limit out" in caught.value.hint
    assert limits.controllers(wanted) == {controller}


@pytest.mark.parametrize("order", [(64, 64, 128, 128), (128, 128, 64, 64), (64, 64, 64, -1), (64, -1, 32, 32)])
def test_version_1_never_sees_more_memory_than_memory_and_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int, int, int]
) -> None:
    """Whichever of both files must come first does, up and down: the kernel refuses the other order."""
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    for name in names:
        (tmp_path / name).write_text(str(1 << 62))
    write = limits.control.write

    def checked(path: Path, value: str) -> None:
        write(path, str(1 << 62) if value == "-1" else value)
        memory, both = (int((tmp_path / name).read_text()) for name in names)
        assert memory <= both

    monkeypatch.setattr(limits.control, "write", checked)
    files = Directories(legacy={"memory": tmp_path}, unified=tmp_path)
    first, second = (Limits(memory_bytes=memory, memory_swap_bytes=both) for memory, both in (order[:2], order[2:]))
    limits.apply(files, first)
    limits.apply(files, second, first)
    limits.apply(files, Limits(), second)
    assert [(tmp_path / name).read_text() for name in names] == [str(1 << 62)] * 2


def test_the_disk_of_a_path_is_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition stands for its disk, a file for the disk that it lies on; without a disk there is an error."""
    status = tmp_path.stat()
    disk = tmp_path / "devices/sda"
    part = disk / "sda1"
    part.mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (part / "partition").write_text("1\n")
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    monkeypatch.setattr(devices, "_SYS", numbers)
    assert devices.find(tmp_path) is None
    (numbers / f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}").symlink_to(part)
    assert devices.disk_of(tmp_path) == os.makedev(8, 0)
    with pytest.raises(InvalidArgument, match="absent"):
        devices.disk_of(tmp_path / "absent")


def test_what_every_container_gets_can_be_changed() -> None:
    """nofile has a default, the rest is the kernel's; what was asked for wins."""
    assert set(rlimits.plan(Limits())) == {"RLIMIT_NOFILE"}
    asked = Limits(ulimits=(Ulimit(name="nofile", soft=5, hard=6), Ulimit(name="core", soft=0, hard=-1)))
    assert rlimits.plan(asked) == {"RLIMIT_NOFILE": [5, 6], "RLIMIT_CORE": [0, -1]}


def test_what_the_agent_may_not_raise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_SYS_RESOURCE no hard limit above its own, and no score below 0; with it both."""
    above = Limits(ulimits=(Ulimit(name="nofile", soft=1, hard=1 << 30),))
    below = Limits(oom_score_adj=-1)
    monkeypatch.setattr(rlimits, "_may_raise", lambda: False)
    for wanted in (above, below):
        with pytest.raises(Unsupported, match=r"may not raise|CAP_SYS_RESOURCE"):
            rlimits.check(wanted)
    monkeypatch.setattr(rlimits, "_may_raise", lambda: True)
    rlimits.check(above)
    rlimits.check(below)


@pytest.fixture
def legacy(tmp_path: Path) -> Directories:
    """Version 1: one directory a controller, below one that has what there is."""
    found = {}
    for controller, files in {
        "memory": ("memory.swappiness", "memory.oom_control", "memory.limit_in_bytes"),
        "cpuset": ("cpuset.mems", "cpuset.effective_mems"),
    }.items():
        directory = tmp_path / controller / "parent" / "own"
        directory.mkdir(parents=True)
        for name in files:
            (directory / name).write_text("")
        found[controller] = directory
    (tmp_path / "cpuset" / "parent" / "cpuset.effective_mems").write_text("0-1\n")
    (tmp_path / "unified").mkdir()
    return Directories(legacy=found, unified=tmp_path / "unified")


def test_what_only_version_1_has_is_written_there(legacy: Directories) -> None:
    """Swappiness 0 is a value, not nothing; a node that the host lacks is refused."""
    limits.apply(legacy, Limits(memory_bytes=64 * MIB, memory_swappiness=0, oom_kill_disable=True, cpuset_mems="1"))
    memory, cpuset = legacy.legacy["memory"], legacy.legacy["cpuset"]
    assert (memory / "memory.swappiness").read_text() == "0"
    assert (memory / "memory.oom_control").read_text() == "1"
    assert (cpuset / "cpuset.mems").read_text() == "1"
    with pytest.raises(InvalidArgument, match="0-1"):
        limits.apply(legacy, Limits(cpuset_mems="2"))


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        (Limits(memory_swappiness=10), "leave --memory-swappiness out"),
        (Limits(memory_bytes=64 * MIB, oom_kill_disable=True), "leave --oom-kill-disable out"),
    ],
)
def test_version_2_refuses_what_it_does_not_have(unified: Directories, wanted: Limits, hint: str) -> None:
    """And says what to use."""
    with pytest.raises(Unsupported) as refused:
        limits.apply(unified, wanted)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "wanted", [Limits(memory_swappiness=101), Limits(oom_kill_disable=True), Limits(cpuset_mems="0-")]
)
def test_what_makes_no_sense_on_any_host(wanted: Limits) -> None:
    """No swappiness above 100; without a limit of memory the host itself would run out of it; no list without an end."""
    with pytest.raises(InvalidArgument):
        limits.check(wanted)

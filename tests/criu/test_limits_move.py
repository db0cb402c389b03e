"""Limits travel: each is measured in the container on its first host, after a move, and back home after an update on the way."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from migrate.errors import MigrateError
from migrate.records import DeviceRate, Run, Ulimit
from tests.criu.moving_lab import MovingLab, wait_for

pytestmark = pytest.mark.criu

MIB = 1 << 20
DISK = "/var"  # every host's writable layers lie on its disk
COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.05; done"
# Starts no process: a shell that may not fork while all processes are taken would end.
STEADY_COUNTER = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what processes leave behind is init's: nobody else ends those zombies
i = 0
while True:
    i += 1
    with open("/count.new", "w") as file:
        file.write(str(i))
    os.replace("/count.new", "/count")
    time.sleep(0.05)
"""
LOOPS = "timeout 2.5 sh -c 'while :; do :; done' & timeout 2.5 sh -c 'while :; do :; done'; true"
FORKS = """
import os, sys
made = 0
try:
    for _ in range(100):
        if os.fork() == 0:
            os.read(0, 1); os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""
DIGEST = "import hashlib; print(hashlib.sha256(open('/data', 'rb').read()).hexdigest())"
HUNGRY = "x = bytearray(150 << 20); print('lived')"
CPU = max(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Measured:
    """What was seen of the limits in one place."""

    cpu_share: float
    processes: int
    processors: str
    hungry: str
    killed: int  # by this measurement
    written: str
    write_s: float
    fullness: str
    nofile: tuple[str, str]
    score: str
    shm: int
    control_files: tuple[str, str]


def measure(fleet: MovingLab, name: str) -> Measured:
    def run(*argv: str) -> str:
        return fleet.run(name, *argv)[1]

    container = fleet.client.inspect(name)
    loops = threading.Thread(target=run, args=("/bin/sh", "-c", LOOPS))
    loops.start()
    time.sleep(0.7)
    (before,) = fleet.client.stats(name)
    time.sleep(1.2)
    (after,) = fleet.client.stats(name)
    loops.join()
    hungry = run("/usr/bin/python3", "-c", HUNGRY)
    killed = fleet.client.inspect(name).oom_kills - container.oom_kills
    forks = run("/usr/bin/python3", "-c", FORKS).split()
    began = time.monotonic()
    written = run("/bin/sh", "-c", "dd if=/dev/zero of=/fast bs=1M count=5 oflag=direct 2>&1; rm /fast")
    write_s = time.monotonic() - began
    fullness = run(
        "/bin/sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=9 2>&1; wc -c < /dev/shm/x; rm /dev/shm/x"
    )
    limits = re.search(r"Max open files\s+(\S+)\s+(\S+)", run("/bin/cat", "/proc/1/limits"))
    assert limits
    return Measured(
        cpu_share=(after.cpu_ns - before.cpu_ns) / (after.unix_ns - before.unix_ns),
        processes=int(forks[-1]),
        processors=run("/bin/grep", "Cpus_allowed_list", "/proc/1/status").split()[1],
        hungry=hungry,
        killed=killed,
        written=written,
        write_s=write_s,
        fullness=fullness,
        nofile=(limits[1], limits[2]),
        score=run("/bin/cat", "/proc/1/oom_score_adj").strip(),
        shm=int(fullness.split()[-1]),
        control_files=(
            fleet.control_file(container, "memory", "memory.limit_in_bytes", "memory.max"),
            fleet.control_file(container, "pids", "pids.max", "pids.max"),
        ),
    )


def count(fleet: MovingLab, name: str) -> int:
    return int(fleet.run(name, "/bin/cat", "/count")[1])


@pytest.fixture(scope="module")
def places(fleet: MovingLab) -> Iterator[tuple[Measured, Measured]]:
    """Before and after a move of one container."""
    fleet.client.run(
        Run(
            image="work",
            name="limited",
            host="host1",
            argv=("/usr/bin/python3", "-c", STEADY_COUNTER),
            memory_bytes=100 * MIB,
            cpus=0.5,
            pids=20,
            cpuset_cpus=str(CPU),
            device_rates=(DeviceRate(path=DISK, what="write_bps", rate=2 * MIB),),
            ulimits=(Ulimit(name="nofile", soft=100, hard=200),),
            shm_bytes=4 * MIB,
            oom_score_adj=123,
        )
    )
    try:
        here = measure(fleet, "limited")
        counted = count(fleet, "limited")
        fleet.move("limited")
        assert count(fleet, "limited") > counted
        yield here, measure(fleet, "limited")
    finally:
        fleet.client.remove("limited", force=True)


@pytest.mark.parametrize("place", [0, 1], ids=["at home", "after a move"])
def test_limits_have_their_effect(places: tuple[Measured, Measured], place: int) -> None:
    """Processors, memory, processes, disk, descriptors, /dev/shm: as asked for, there as here."""
    seen = places[place]
    assert 0.2 < seen.cpu_share <= 0.6
    assert seen.processors == str(CPU)
    assert "lived" not in seen.hungry
    assert seen.killed == 1
    assert 10 <= seen.processes < 20
    assert "records out" in seen.written
    assert seen.write_s > 2.0
    assert "No space left" in seen.fullness
    assert seen.shm == 4 * MIB
    assert (seen.nofile, seen.score) == (("100", "200"), "123")
    assert seen.control_files == (str(100 * MIB), "20")


def test_what_was_updated_on_the_way_comes_along(fleet: MovingLab, places: tuple[Measured, Measured]) -> None:
    """Changed on the second host, in force at once and after the way back; a paused container does not move."""
    fleet.client.update(
        "limited", memory_bytes=300 * MIB, pids=40, device_rates=(DeviceRate(path=DISK, what="write_bps", rate=0),)
    )
    assert fleet.run("limited", "/usr/bin/python3", "-c", HUNGRY)[1] == "lived\n"
    fleet.client.pause("limited")
    with pytest.raises(MigrateError, match="paused") as refused:
        fleet.move("limited")
    assert "migrate unpause limited" in refused.value.hint
    fleet.client.unpause("limited")
    fleet.move("limited")
    seen = measure(fleet, "limited")
    assert seen.control_files == (str(300 * MIB), "40")
    assert "lived" in seen.hungry
    assert 20 < seen.processes < 40
    assert seen.write_s < places[0].write_s - 1
    assert 0.2 < seen.cpu_share <= 0.6


@pytest.mark.needs("sized-layers")
def test_a_limited_layer_travels(fleet: MovingLab) -> None:
    """The target makes a file system of the same size; files, also open and deleted ones, go from one into the other; no trace stays."""
    held = "exec 7>/held; echo deleted >&7; rm /held; exec 8</etc/hostname; " + COUNTER
    container = fleet.client.run(
        Run(image="work", name="sized", host="host1", argv=("/bin/sh", "-c", held), storage_bytes=64 * MIB)
    )

    def image(host: str) -> Path:
        return fleet.lab.node_dir(host) / "var/containers" / container.id / "layer.img"

    try:
        fleet.run("sized", "/bin/sh", "-c", "dd if=/dev/urandom of=/data bs=1M count=10; sync")
        digest = fleet.run("sized", "/usr/bin/python3", "-c", DIGEST)[1]
        assert len(digest) == 65
        for source, target in (("host1", "host2"), ("host2", "host1")):
            counted = count(fleet, "sized")
            fleet.move("sized")
            assert count(fleet, "sized") > counted
            assert (image(target).exists(), image(source).exists()) == (True, False)
            assert fleet.run("sized", "/usr/bin/python3", "-c", DIGEST)[1] == digest
            assert fleet.run("sized", "/bin/cat", "/proc/1/fd/7")[1] == "deleted\n"
            said = fleet.run("sized", "/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1M count=100 2>&1; rm /big")[1]
            assert "No space left" in said
    finally:
        fleet.client.remove("sized", force=True)
    # The file system is detached, and the last one to let go frees its device: tens of milliseconds on a busy machine.
    wait_for(lambda: not any(container.id in text for text in backing_files()))


def backing_files() -> list[str]:
    """Of all loop devices of this machine."""
    found: list[str] = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it was freed meanwhile
            found.append(path.read_text())
    return found


HOLDER = """
import time
held = bytearray(87 << 20)
for at in range(0, len(held), 4096):
    held[at] = 120
print("held", flush=True)
while True:
    time.sleep(0.1)
    assert held.count(b"x") == 87 << 8
    open("/count", "w").write(str(time.monotonic_ns()))
"""


def test_one_that_is_close_to_its_limit_of_memory_survives_the_move(fleet: MovingLab) -> None:
    """Nine tenths of the limit in use: nothing is killed while its memory arrives, and the limit is the same there."""
    argv = ("/usr/bin/python3", "-c", HOLDER)
    container = fleet.client.run(Run(image="work", name="holder", host="host1", argv=argv, memory_bytes=100 * MIB))
    try:
        wait_for(lambda: any(b"held" in line.data for line in fleet.client.logs("holder")))
        for _ in range(2):
            fleet.move("holder")
            time.sleep(1.5)  # the last pages come after it
            now = fleet.client.inspect("holder")
            assert (now.state, now.oom_kills) == ("running", 0)
            assert fleet.control_file(now, "memory", "memory.limit_in_bytes", "memory.max") == str(100 * MIB)
            (used,) = fleet.client.stats("holder")
            assert 85 * MIB < used.memory_bytes <= 100 * MIB
    finally:
        fleet.client.remove(container.name, force=True)

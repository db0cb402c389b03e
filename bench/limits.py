"""`python -m bench.limits`: limits as asked for, and as a process in the container meets them: at its start, and after a move.

A lab of its own with two hosts. One container has all limits; each is measured from inside, by what a process can do, or from
outside, by what it took. Two more containers share a processor, to see shares. Exit status 1 where an effect is missing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from migrate.client import Client
from migrate.errors import MigrateError
from migrate.lab import down, images, up
from migrate.lab.layout import Lab
from migrate.records import DeviceRate, Run, Ulimit

NAME = "limited"
MIB = 1 << 20
DISK = "/var"  # every host's writable layers lie on its disk
CPU = max(os.sched_getaffinity(0))
# Whatever its processes leave behind is its own to wait for, as pid 1.
IDLE = "import signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: time.sleep(1)"
LOOPS = "for _ in 1 2; do (timeout 3 sh -c 'while :; do :; done' &) ; done; sleep 3.2"
HOG = "x = []\ntry:\n    while True: x.append(bytearray(1 << 20)); print(len(x), flush=True)\nexcept MemoryError: print('error')"
FORKS = """
import os
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            os.read(0, 1); os._exit(0)
        made += 1
except OSError as exc:
    print(made, exc.strerror)
"""
OPENED = """
made = []
try:
    while True: made.append(open('/dev/null'))
except OSError as exc: print(len(made) + 3, exc.strerror)
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """`measure` returns what was seen, and whether that is the limit's effect."""

    flag: str
    measure: Callable[[Place], tuple[str, bool]]


class Place:
    """The container where it is now, and ways to use it."""

    def __init__(self, fleet: Client) -> None:
        self.fleet = fleet

    def run(self, *argv: str, name: str = NAME) -> str:
        return b"".join(output.data for output in self.fleet.exec(name, argv)).decode(errors="replace")

    def shell(self, line: str, name: str = NAME) -> str:
        return self.run("/bin/sh", "-c", line, name=name)

    def python(self, program: str) -> str:
        return self.run("/usr/bin/python3", "-c", program)

    def cpu_share(self, *names: str) -> list[float]:
        """Of one processor, while each of them has two loops running, seen from outside."""
        loops = [threading.Thread(target=self.shell, args=(LOOPS, name)) for name in names]
        for each in loops:
            each.start()
        time.sleep(0.7)
        before = {one.name: one for one in self.fleet.stats(*names)}
        time.sleep(1.5)
        after = {one.name: one for one in self.fleet.stats(*names)}
        for each in loops:
            each.join()
        pairs = [(before[name], after[name]) for name in names]
        return [(new.cpu_ns - old.cpu_ns) / (new.unix_ns - old.unix_ns) for old, new in pairs]

    def seconds(self, line: str) -> float:
        begun = time.monotonic()
        self.shell(line)
        return time.monotonic() - begun


def memory(place: Place) -> tuple[str, bool]:
    before = place.fleet.inspect(NAME).oom_kills
    said = place.python(HOG).split()
    killed = place.fleet.inspect(NAME).oom_kills - before
    reached = int(said[-1]) if said and said[-1].isdigit() else 0
    return f"killed after {reached} MiB, {killed} OOM kill reported", 60 <= reached < 100 and killed == 1


def processors(place: Place) -> tuple[str, bool]:
    (share,) = place.cpu_share(NAME)
    return f"{share:.2f} of a processor, two loops", 0.3 < share <= 0.56


def cpuset(place: Place) -> tuple[str, bool]:
    seen = place.run("/bin/grep", "Cpus_allowed_list", "/proc/self/status").split()[1]
    return f"runs on {seen}", seen == str(CPU)


def processes(place: Place) -> tuple[str, bool]:
    said = place.python(FORKS).split(maxsplit=1)
    return f"{said[0]} forks, then: {said[1].strip()}", 15 <= int(said[0]) < 32


def writes(place: Place) -> tuple[str, bool]:
    seconds = place.seconds("dd if=/dev/zero of=/w bs=1M count=8 oflag=direct 2>&1; rm /w")
    return f"{8 / seconds:.1f} MiB/s, O_DIRECT", 2.5 < seconds < 8


def reads(place: Place) -> tuple[str, bool]:
    place.shell("test -e /r || { dd if=/dev/zero of=/r bs=1M count=8 2>&1; sync; }")
    seconds = place.seconds("dd if=/r of=/dev/null bs=1M iflag=direct 2>&1")
    return f"{8 / seconds:.1f} MiB/s, O_DIRECT", 1.2 < seconds < 8


def layer(place: Place) -> tuple[str, bool]:
    said = place.shell("dd if=/dev/zero of=/full bs=1M count=300 2>&1 | head -1; wc -c < /full; rm /full")
    held = int(re.findall(r"^\d+$", said, re.MULTILINE)[-1])
    return f"ENOSPC after {held / MIB:.0f} MiB", "No space left" in said and 80 * MIB < held <= 128 * MIB


def shared_memory(place: Place) -> tuple[str, bool]:
    said = place.shell("dd if=/dev/zero of=/dev/shm/x bs=1M count=99 2>&1 | head -1; wc -c < /dev/shm/x; rm /dev/shm/x")
    held = int(said.split()[-1])
    return f"ENOSPC after {held / MIB:.0f} MiB", "No space left" in said and held == 8 * MIB


def files(place: Place) -> tuple[str, bool]:
    said = place.python(OPENED).split(maxsplit=1)
    return f"{said[0]} files, then: {said[1].strip()}", said[0] == "100"


def score(place: Place) -> tuple[str, bool]:
    seen = place.run("/bin/cat", "/proc/self/oom_score_adj").strip()
    return f"oom_score_adj {seen}", seen == "123"


def shares(place: Place) -> tuple[str, bool]:
    much, little = place.cpu_share("much", "little")
    return f"{much / max(little, 0.01):.1f} : 1 on one processor", 2.5 < much / max(little, 0.01) < 6.5


ROWS: Sequence[Row] = (
    Row(flag="--memory 100m", measure=memory),
    Row(flag="--cpus 0.5", measure=processors),
    Row(flag=f"--cpuset-cpus {CPU}", measure=cpuset),
    Row(flag="--cpu-shares 1024 beside 256", measure=shares),
    Row(flag="--pids-limit 32", measure=processes),
    Row(flag=f"--device-write-bps {DISK}:2m", measure=writes),
    Row(flag=f"--device-read-bps {DISK}:4m", measure=reads),
    Row(flag="--storage-opt size=128m", measure=layer),
    Row(flag="--shm-size 8m", measure=shared_memory),
    Row(flag="--ulimit nofile=100", measure=files),
    Row(flag="--oom-score-adj 123", measure=score),
)


def start(fleet: Client) -> None:
    """The container with all limits, and two that share a processor, on host1."""
    with images.python_rootfs().open("rb") as tar:
        fleet.import_image(tar, "work")
    idle = ("/usr/bin/python3", "-c", IDLE)
    fleet.run(
        Run(
            image="work",
            name=NAME,
            host="host1",
            argv=idle,
            memory_bytes=100 * MIB,
            cpus=0.5,
            pids=32,
            cpuset_cpus=str(CPU),
            device_rates=(
                DeviceRate(path=DISK, what="write_bps", rate=2 * MIB),
                DeviceRate(path=DISK, what="read_bps", rate=4 * MIB),
            ),
            ulimits=(Ulimit(name="nofile", soft=100, hard=100),),
            shm_bytes=8 * MIB,
            storage_bytes=128 * MIB,
            oom_score_adj=123,
        )
    )
    for name, weight in (("much", 1024), ("little", 256)):
        fleet.run(Run(image="work", name=name, host="host1", argv=idle, cpu_shares=weight, cpuset_cpus=str(CPU)))


def table(lab: Lab) -> bool:
    """Measure and print. Returns whether every limit has its effect at both places. Raises MigrateError."""
    well = True
    with Client(lab.socket) as fleet:
        start(fleet)
        place = Place(fleet)
        here = [row.measure(place) for row in ROWS]
        for name in (NAME, "much", "little"):
            fleet.move(name, to="host2").result()
        there = [row.measure(place) for row in ROWS]
    print(f"{'asked for':<30} {'measured on host1':<48} measured after the move to host2")
    for row, (seen, ok), (moved, moved_ok) in zip(ROWS, here, there, strict=True):
        well = well and ok and moved_ok
        print(f"{row.flag:<30} {seen + ('' if ok else '  MISSING'):<48} {moved}{'' if moved_ok else '  MISSING'}")
    return well


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--lab", default=f"mlim{os.getpid()}", help="the lab's name")
    args = parser.parse_args(argv)
    down.down(args.lab, force=True)
    try:
        well = table(up.up(args.lab, hosts=2, criu="", say=lambda _: None))
    except MigrateError as exc:
        print(f"error: {exc}\n{exc.hint}", file=sys.stderr)
        return 1
    finally:
        down.down(args.lab)
    print("every limit has its effect at both places" if well else "NOT every limit has its effect")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

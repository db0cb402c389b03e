"""`python -m bench.transfer [--size-mb N] [--runs N]`: processor time of a move's two transfer processes, with a pipe in place of ssh.

A process of SIZE MB in a cgroup of its own, watched and frozen as in a move; the product's sender side (Precopy, Writer, Keeper) in one
process, its receiver in another, a pipe between them. What each has used, user and system, divided by the gigabytes of memory
that were read; what it takes to start them, measured by a move of nothing, is subtracted. Every run has a sender and a receiver of
its own. Shapes:

    random    no two pages alike, all of them sent
    values    as a Redis whose values were random: a third of the pages zero, in runs of 1 to 64 pages
    back      "random" once more, to a target that has kept it: its pages are named, not sent

Needs root. See docs/pages.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import mmap
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.engine.cgroup import Tasks, probe
from agent.handover import stage
from agent.handover.record import Move
from agent.memory.ranges import PAGE, total_bytes
from agent.setup import criu
from agent.transfer import pages
from agent.transfer.frames import PROTOCOL, Answers, Kind
from agent.transfer.kept import Keeper
from agent.transfer.page_index import PageIndex
from agent.transfer.precopy import Precopy
from agent.transfer.ssh import enlarge
from agent.transfer.writer import Writer
from bench import table
from bench.trackers import memory_of, ways

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("random", "values", "back")
_EMPTY = "empty"
_STARTS = 4  # moves of nothing
_RUN_LIMIT_S = 300.0
_MIGRATION = "bench"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Used:
    """Of one process: seconds."""

    user_s: float
    system_s: float

    def __sub__(self, other: Used) -> Used:
        return Used(user_s=self.user_s - other.user_s, system_s=self.system_s - other.system_s)

    @classmethod
    def of(cls, usage: resource.struct_rusage) -> Used:
        return cls(user_s=usage.ru_utime, system_s=usage.ru_stime)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One transfer. `read_bytes`: memory that the sender looked at."""

    read_bytes: int
    wire_bytes: int
    took_s: float
    sender: Used
    receiver: Used


def fill(shape: str, size: int) -> mmap.mmap:
    """The memory of the process that is sent."""
    memory = mmap.mmap(-1, max(size, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    choose = random.Random(size)
    at = 0
    while at < size:
        length = min(choose.randrange(1, 65) * PAGE if shape == "values" else 1 << 20, size - at)
        if shape == "values" and choose.random() < 1 / 3:
            memory[at : at + length] = bytes(length)
        else:
            memory[at : at + length] = os.urandom(length)
        at += length
    return memory


def hold(shape: str, size: int) -> None:
    """The process that is sent: has its memory, says so, and waits for its end."""
    memory = fill(shape, size)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not memory.closed:
        signal.pause()


@contextmanager
def container(shape: str, size: int) -> Iterator[Tasks]:
    """hold() in a cgroup of its own, which is gone in the end with all that is in it."""
    directory = probe().unified / f"migrate-bench-transfer-{os.getpid()}"
    directory.mkdir()
    tasks = Tasks(directory)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.transfer", "--hold", shape, str(size)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        (directory / "cgroup.procs").write_text(str(process.pid))
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the process that is to be sent did not start")
        yield tasks
    finally:
        tasks.freeze(False)
        process.kill()
        process.wait()
        tasks.wait_empty(10)
        directory.rmdir()


def send(freezer: Path, tx_fd: int, rx_fd: int, keep: str, way: str) -> dict[str, object]:
    """The sender's part: a round while it runs, one frozen, to the target's last answer."""
    began = time.monotonic()
    writer, answers = Writer(tx_fd), Answers(rx_fd)
    writer.label = "memory"
    writer.send_json(Kind.HELLO, {"protocol": PROTOCOL, "migration": _MIGRATION, "kept": True})
    index = answers.read_exactly(int(answers.next()["kept_bytes"]))
    known = PageIndex.unpacked(index, places=False) if index else None
    keeper = Keeper(Path(keep), 8 << 30) if keep else None
    precopy, tasks = Precopy(writer, freezer, way, kept=known, keeper=keeper), Tasks(freezer)
    read = precopy.send_round().written_bytes
    writer.send_json(Kind.ROUND, {})
    precopy.owe(answers.next()["lacking"])
    tasks.freeze(True)
    precopy.last_look()
    for task, pid in pages.tasks_by_inner_pid(tasks.procs()).items():
        wanted = memory_of(pid)
        lacking = precopy.lacking(pid, wanted)
        read += total_bytes(lacking)
        precopy.send_frozen(task, pid, lacking)
    writer.send_json(Kind.ROUND, {})  # not DONE: that is about CRIU's images, too
    if lacking := answers.next()["lacking"]:
        raise RuntimeError(f"the target lacks {lacking}")
    if keeper:
        keeper.finish()
    return {"read_bytes": read, "wire_bytes": writer.sent_bytes, "took_s": time.monotonic() - began}


def one_run(tasks: Tasks, directory: Path, way: str, *, kept: str) -> Run:
    """One transfer out of the process in `tasks`, which runs on. `kept`: what the target has of an earlier one; "" = nothing."""
    move = Move(directory / "moves", _MIGRATION, "target")
    stage.mount(move, sum(total_bytes(memory_of(pid)) for pid in tasks.procs()))
    ends: list[int] = []
    try:
        theirs, tx_fd = _pipe(ends)
        rx_fd, ours = _pipe(ends)
        keep = directory / "keep"
        receiver = _start_receiver(move, directory, theirs, ours, kept)
        sender = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.transfer", "--send"),
                *(str(tasks.freezer), str(tx_fd), str(rx_fd), str(keep), way),
            ],
            cwd=ROOT,
            pass_fds=(tx_fd, rx_fd),
            stdout=subprocess.PIPE,
        )
        while ends:
            os.close(ends.pop())
        assert sender.stdout is not None
        said, sent = sender.stdout.read(), _ended(sender)
        received = _ended(receiver)
        return Run(sender=sent, receiver=received, **json.loads(said))
    finally:
        for fd in ends:
            os.close(fd)
        tasks.freeze(False)
        stage.unmount(move)


def _pipe(ends: list[int]) -> tuple[int, int]:
    """(read, write), as large as ssh's; both are added to `ends`."""
    pipe = os.pipe()
    ends += pipe
    enlarge(pipe[0])
    return pipe


def _start_receiver(move: Move, directory: Path, rx_fd: int, tx_fd: int, kept: str) -> subprocess.Popen[bytes]:
    plan = {
        "host": "here",
        "migration": _MIGRATION,
        "images_dir": str(move.images),
        "memory_dir": str(move.memory),
        "logs_dir": str(move.logs),
        "roots": [],
        "store": str(directory / "store"),
        "received": str(move.received),
        "pycriu_path": str(criu.locate().pycriu_path),
        "lazy": True,
        "again": False,
        "kept": kept,
    }
    path = directory / "plan.json"
    path.write_text(json.dumps(plan))
    control, door = socket.socketpair()
    with control, door:
        fds = (rx_fd, tx_fd, control.fileno(), door.fileno())
        names = ("--rx-fd", "--tx-fd", "--control-fd", "--door-fd")
        words = [word for name, fd in zip(names, fds, strict=True) for word in (name, str(fd))]
        argv = [sys.executable, "-m", "agent.transfer.receiver", *words, str(path)]
        return subprocess.Popen(argv, cwd=ROOT, pass_fds=fds)


def _ended(process: subprocess.Popen[bytes]) -> Used:
    """Raises RuntimeError when it failed, TimeoutError when it does not end."""
    deadline = time.monotonic() + _RUN_LIMIT_S
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"{process.args!r} did not end in {_RUN_LIMIT_S:g} s")
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen did not see it
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
    return Used.of(usage)


def measure(shape: str, size: int, count: int, way: str, directory: Path) -> list[Run]:
    """`count` transfers of one shape, one after the other."""
    runs: list[Run] = []
    with container("random" if shape == "back" else shape, size) as tasks:
        kept = ""
        if shape == "back":
            one_run(tasks, directory, way, kept="")
            kept = str(directory / "kept")
            (directory / "keep").rename(kept)
        for _ in range(count):
            runs.append(one_run(tasks, directory, way, kept=kept))
    return runs


def least(runs: Sequence[Run]) -> dict[str, Used]:
    """Of each process."""
    return {
        name: Used(
            user_s=min(getattr(run, name).user_s for run in runs),
            system_s=min(getattr(run, name).system_s for run in runs),
        )
        for name in ("sender", "receiver")
    }


def lines(shapes: dict[str, list[Run]], start: dict[str, Used]) -> list[str]:
    """The table. The least of all runs, for other work on the machine only adds; in brackets the least and the most of the two together."""
    head = ("shape", "process", "user CPU-s/GB", "system CPU-s/GB", "together", "", "MB read", "MB on the wire", "s")
    cells: list[tuple[str, ...]] = [head]
    for shape, runs in shapes.items():
        both: list[float] = [0.0] * len(runs)
        for name in ("sender", "receiver"):
            used: list[Used] = [getattr(run, name) - start[name] for run in runs]
            a_gb = [1e9 / run.read_bytes for run in runs]
            user = [each.user_s * per for each, per in zip(used, a_gb, strict=True)]
            system = [each.system_s * per for each, per in zip(used, a_gb, strict=True)]
            each_run = [a + b for a, b in zip(user, system, strict=True)]
            both = [a + b for a, b in zip(both, each_run, strict=True)]
            middle = [f"{min(values):.2f}" for values in (user, system, each_run)]
            cells.append((shape, name, *middle, "", "", "", ""))
        middle = [
            f"{statistics.median([run.read_bytes for run in runs]) / 1e6:.0f}",
            f"{statistics.median([run.wire_bytes for run in runs]) / 1e6:.1f}",
            f"{min(run.took_s for run in runs):.2f}",
        ]
        spread = f"({min(both):.2f}-{max(both):.2f})"
        cells.append((shape, "both", "", "", f"{min(both):.2f}", spread, *middle))
    return table.align(cells, left=2)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.transfer", description=__doc__)
    parser.add_argument("--size-mb", type=int, default=600, help="memory of the process that is sent (default: 600)")
    parser.add_argument("--runs", type=int, default=3, help="of each shape (default: 3)")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this one; may be given several times")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a disk (default: /var/tmp)")
    parser.add_argument("--hold", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--send", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.hold:
        hold(arguments.hold[0], int(arguments.hold[1]))
        return 0
    if arguments.send:
        freezer, tx_fd, rx_fd, keep, way = arguments.send
        print(json.dumps(send(Path(freezer), int(tx_fd), int(rx_fd), keep, way)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted and frozen is undone
    way = ways()[0][0]
    print(f"kernel {os.uname().release}, writes seen by {way}, {arguments.runs} runs of {arguments.size_mb} MB")
    shapes: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        start = least(measure(_EMPTY, 0, _STARTS, way, Path(directory)))
        for shape in arguments.shape or SHAPES:
            shapes[shape] = measure(shape, arguments.size_mb << 20, arguments.runs, way, Path(directory))
    print("\n".join(lines(shapes, start)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.trackers [--cases N] [--seed S] [--way W]`: does a dirty tracker ever miss a page?

Each case starts restless.py in a cgroup of its own, sends its memory in rounds while it runs, as a move does (the same Precopy, frames and
MemoryStore), freezes it and sends the rest, large areas as what CRIU is not shown. Then every page that CRIU would find in every task is
compared with what the target has of it, and of those large areas every page there is, holes too. For each way that this kernel has.
Exit status 1 for one page that differs, with the seed that shows it again. Needs root.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from agent.engine.cgroup import Tasks, probe
from agent.handover import stage as handover_stage
from agent.handover.record import Move
from agent.memory import withheld
from agent.memory.areas import PRESENT, page_entries, pages_where, populated, private_anonymous
from agent.memory.ranges import NOTHING, PAGE, Ranges, ranges, subtract, total_bytes, union
from agent.memory.watching import WAYS
from agent.memory.ways import CAPABILITIES
from agent.setup import probe as capabilities
from agent.transfer import pages
from agent.transfer.frames import Kind, Reader
from agent.transfer.memory_store import MemoryStore
from agent.transfer.precopy import Precopy
from agent.transfer.writer import Writer

RESTLESS = Path(__file__).with_name("restless.py")
STAGE_BYTES = 1 << 30
_FRAME_NUMBER = (1 << 55) - 1
_KPF_ANON, _KPF_SWAPBACKED = 1 << 12, 1 << 14  # linux/kernel-page-flags.h


@dataclasses.dataclass(kw_only=True)
class Statistics:
    """Of all cases of one way. `ahead`: pages that were not sent again in the freeze, which is what a tracker is for. `given_up`: pages
    under MADV_FREE that the kernel took in the freeze: the program has lost what was in them wherever it runs.
    """

    cases: int = 0
    rounds: int = 0
    tasks: int = 0
    pages: int = 0
    withheld: int = 0  # of areas that CRIU would not be shown, pages of all kinds
    ahead: int = 0
    shadowed: int = 0
    given_up: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.cases} cases, {self.rounds} rounds, {self.tasks} tasks, {self.pages} pages compared, of which "
            f"{self.ahead} had been sent ahead, and {self.withheld} of withheld areas; "
            f"{self.shadowed} tasks fell back to the shadow; "
            f"{self.given_up} pages taken by the kernel in the freeze; {len(self.wrong)} pages wrong"
        )


class Target:
    """The other end: frames into a MemoryStore, in a thread."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore(directory)
        self.directory = directory
        receive, self._send = os.pipe()
        self.writer = Writer(self._send)
        self._rounds = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._take, args=(receive,))
        self._thread.start()

    def confirm(self) -> None:
        if not self._rounds.acquire(timeout=60):
            raise TimeoutError("the target took no round in 60 s")

    def end(self) -> None:
        self.writer.flush()
        self.writer.close()
        os.close(self._send)
        self._thread.join()

    def _take(self, receive: int) -> None:
        reader = Reader(receive)
        while (frame := reader.read(self.store.places)) is not None:
            if not self.store.take(frame):
                self._rounds.release()
        os.close(receive)


def ways() -> tuple[list[str], list[str]]:
    """(those that this kernel has, why it has not the others)."""
    found = {way: capabilities.one(capability) for way, capability in CAPABILITIES.items()}
    missing = [f"{way}: missing capability: {one.name} ({one.value})" for way, one in found.items() if not one.ok]
    return [way for way in WAYS if way not in found or found[way].ok], missing


def case(way: str, seed: int, statistics: Statistics) -> None:
    """One life of a restless program, to its freeze."""
    choose = random.Random(seed)
    with stage() as directory, restless(seed, choose.choice((2, 6, 20))) as tasks:
        target = Target(directory / "memory")
        precopy = Precopy(target.writer, tasks.freezer, way)
        try:
            for _ in range(choose.randrange(2, 7)):
                time.sleep(choose.random() / 5)
                precopy.send_round()
                target.writer.send_json(Kind.ROUND, {})
                target.confirm()
                statistics.rounds += 1
            tasks.freeze(True)
            statistics.shadowed += len(precopy.shadowed)
            precopy.last_look()
            time.sleep(0.05)  # a task that was being killed dies, frozen or not
            here = {task: pid for task, pid in pages.tasks_by_inner_pid(tasks.procs()).items() if _has_memory(pid)}
            wanted = {task: memory_of(pid) for task, pid in here.items()}
            populated_before = dict(wanted)
            free = {task: under_madv_free(pid, wanted[task]) for task, pid in here.items()}
            for task, pid in here.items():
                count = total_bytes(wanted[task]) // PAGE
                statistics.pages += count
                statistics.ahead += count - total_bytes(precopy.lacking(pid, wanted[task])) // PAGE
                areas = withheld.look(pid, task_bytes=0)
                precopy.send_frozen(task, pid, precopy.lacking_of_withheld(task, pid, areas))
                precopy.send_frozen(task, pid, precopy.lacking(pid, subtract(wanted[task], areas)))
                statistics.withheld += total_bytes(areas) // PAGE
                wanted[task] = union(wanted[task], areas)
        finally:
            precopy.close()
            target.end()
        statistics.cases += 1
        statistics.tasks += len(here)
        if lacking := target.store.lacking():  # what was named as known, or sent as a difference, and was not so
            statistics.wrong.append(f"{way}, seed {seed}: the target asks for {lacking}")
        theirs = any(_has_userfaultfd(pid) for pid in here.values())
        for task, pid in here.items():
            if not theirs and "uw" in _flags(pid):
                statistics.wrong.append(f"{way}, seed {seed}: task {task} is still watched")
            found = list(differing(pid, directory / f"memory/{task}.mem", wanted[task]))
            gone = taken(pid, populated_before[task]) if found else set()
            for at, ours, theirs_there in found:
                if at in gone and not any(ours):
                    statistics.given_up += 1
                    continue
                statistics.wrong.append(
                    f"{way}, seed {seed}: task {task}, page {at:#x}: {_content(ours)} here, {_content(theirs_there)} there, "
                    f"{'' if at in free[task] else 'not '}under MADV_FREE"
                )
        target.store.close()


@contextmanager
def stage() -> Iterator[Path]:
    """A file system as a move's stage is."""
    with tempfile.TemporaryDirectory() as directory:
        move = Move(Path(directory), "trackers", "target")
        try:
            handover_stage.mount(move, STAGE_BYTES)
            yield move.stage
        finally:
            handover_stage.unmount(move)


@contextmanager
def restless(seed: int, places: int) -> Iterator[Tasks]:
    """The program in a cgroup of its own, which is gone in the end with all that is in it."""
    directory = probe().unified / f"migrate-restless-{os.getpid()}"
    directory.mkdir()
    tasks = Tasks(directory)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(RESTLESS), str(seed), str(places)], stderr=subprocess.DEVNULL
    )
    try:
        (directory / "cgroup.procs").write_text(str(process.pid))
        time.sleep(0.3)
        yield tasks
    finally:
        tasks.freeze(False)
        tasks.kill()
        process.send_signal(signal.SIGKILL)  # it may have died before it was in the cgroup
        process.wait()
        tasks.wait_empty(10)
        directory.rmdir()


def memory_of(pid: int) -> Ranges:
    """What CRIU writes into a dump's page map: populated pages of private memory, but for the zero page."""
    found = [NOTHING]
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in private_anonymous(pid):
            for at, entries in page_entries(pagemap, start, end):
                zero = ((entries & np.uint64(PRESENT)) != 0) & (
                    (entries & np.uint64(_FRAME_NUMBER)) == np.uint64(zero_frame())
                )
                found.append(pages_where(populated(entries) & ~zero, at))
    finally:
        os.close(pagemap)
    return ranges(np.concatenate(found))


def under_madv_free(pid: int, wanted: Ranges) -> set[int]:
    """Addresses of the pages that the kernel may turn into zeros at any time: anonymous, and not to be swapped out. A few that
    were advised last may be missing: the kernel marks them in batches.
    """
    found: set[int] = set()
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    flags = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in wanted.tolist():
            for first, entries in page_entries(pagemap, start, end):
                for number in np.flatnonzero((entries & np.uint64(PRESENT)) != 0).tolist():
                    frame = int(entries[number]) & _FRAME_NUMBER
                    word = int.from_bytes(os.pread(flags, 8, frame * 8), "little")
                    if word & _KPF_ANON and not word & _KPF_SWAPBACKED:
                        found.add(first + number * PAGE)
    finally:
        os.close(pagemap)
        os.close(flags)
    return found


def taken(pid: int, before: Ranges) -> set[int]:
    """Pages of `before`, memory_of a task that has stood still since, that it has no more: under MADV_FREE, and the kernel took them."""
    return set(pages.page_addresses(subtract(before, memory_of(pid))).tolist())


def _content(page: bytes) -> str:
    return "something" if any(page) else "zeros"


def zero_frame() -> int:
    """The number of the small zero page's frame, as CRIU finds it out."""
    if not _zero_frame:
        import mmap

        area = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        area[:1]
        address = np.frombuffer(area, np.uint8).ctypes.data
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            pagemap.seek(address // PAGE * 8)
            _zero_frame.append(int.from_bytes(pagemap.read(8), "little") & _FRAME_NUMBER)
    return _zero_frame[0]


_zero_frame: list[int] = []


def differing(pid: int, stored: Path, wanted: Ranges) -> Iterator[tuple[int, bytes, bytes]]:
    """(address, here, there) of the pages of a frozen task that the target has otherwise."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        copy = os.open(stored, os.O_RDONLY | os.O_CREAT, 0o600)
        try:
            for start, end in wanted.tolist():
                here, there = os.pread(memory.fileno(), end - start, start), os.pread(copy, end - start, start)
                there += bytes(end - start - len(there))
                if len(here) != end - start:
                    raise OSError(5, f"{len(here)} of {end - start} bytes at {start:#x}")
                if here != there:
                    yield from (
                        (start + at, here[at : at + PAGE], there[at : at + PAGE])
                        for at in range(0, end - start, PAGE)
                        if here[at : at + PAGE] != there[at : at + PAGE]
                    )
        finally:
            os.close(copy)


def _has_memory(pid: int) -> bool:
    """Not a zombie, and not dying."""
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except ProcessLookupError:
        return False
    return True


def _has_userfaultfd(pid: int) -> bool:
    return any("userfaultfd" in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())


def _flags(pid: int) -> set[str]:
    text = Path(f"/proc/{pid}/smaps").read_text()
    return {flag for line in text.splitlines() if line.startswith("VmFlags:") for flag in line.split()[1:]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trackers", description=__doc__)
    parser.add_argument("--cases", type=int, default=20, help="of each way (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the next have the numbers after it")
    parser.add_argument("--way", choices=tuple(WAYS), help="only this one")
    arguments = parser.parse_args(argv)
    here, missing = ways()
    for line in missing:
        print(f"skipped: {line}")
    if arguments.way and arguments.way not in here:
        return 2
    seed = arguments.seed or int.from_bytes(os.urandom(4), "little")
    print(f"kernel {os.uname().release}, seed {seed}")
    wrong: list[str] = []
    for way in [arguments.way] if arguments.way else here:
        statistics = Statistics()
        for number in range(arguments.cases):
            case(way, seed + number, statistics)
        print(f"{way}: {statistics}", flush=True)
        wrong += statistics.wrong
    for line in wrong[:50]:
        print(f"WRONG {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

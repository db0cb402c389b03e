"""Dirty trackers on a real program whose memory does all that memory can do, while rounds run: no page is ever missed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from agent.engine.cgroup import Tasks, probe
from agent.memory.ranges import PAGE
from agent.transfer import pages
from agent.transfer.frames import Kind
from agent.transfer.precopy import Precopy
from bench import trackers

pytestmark = pytest.mark.system

CASES = 8


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("userfaultfd", marks=pytest.mark.needs("userfaultfd-wp")),
        pytest.param("soft-dirty", marks=pytest.mark.needs("soft-dirty")),
        "shadow",
    ],
)
def test_every_page_is_as_the_frozen_task_has_it(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And some had been sent ahead, or the trackers would only say that all is dirty."""
    seed = int.from_bytes(os.urandom(4), "little")
    statistics = trackers.Statistics()
    for number in range(CASES):
        trackers.case(way, seed + number, statistics)
    with capsys.disabled():
        print(f"\n{way}, seed {seed}: {statistics}")
    assert statistics.wrong == []
    assert statistics.pages > 0
    assert statistics.ahead > 0
    assert statistics.withheld > 0


GIVES_UP = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
area = libc.mmap(None, 64 * 4096, 3, 0x22, -1, 0)
libc.madvise(area, 64 * 4096, 15)  # no huge pages
ctypes.memset(area, 0x5A, 64 * 4096)
print(area, flush=True)
sys.stdin.readline()
print(libc.madvise(area, 32 * 4096, 8), flush=True)  # MADV_FREE
sys.stdin.readline()
"""
_PROCESS_MADVISE, _MADV_PAGEOUT = 440, 21


@pytest.mark.needs("userfaultfd-wp")
def test_pages_that_the_kernel_takes_in_the_freeze() -> None:
    """MADV_FREE is no write: such pages count as sent, and the kernel may take them from a frozen task. They are told from a mistake."""
    directory = probe().unified / f"migrate-gives-up-{os.getpid()}"
    directory.mkdir()
    tasks = Tasks(directory)
    program = subprocess.Popen([sys.executable, "-c", GIVES_UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        (directory / "cgroup.procs").write_text(str(program.pid))
        area = int(program.stdout.readline())
        with trackers.stage() as stage:
            target = trackers.Target(stage / "memory")
            precopy = Precopy(target.writer, directory, "userfaultfd")
            for _ in range(2):
                precopy.send_round()
                target.writer.send_json(Kind.ROUND, {})
                target.confirm()
            program.stdin.write(b"\n")
            program.stdin.flush()
            assert program.stdout.readline() == b"0\n"
            tasks.freeze(True)
            precopy.last_look()
            before = trackers.memory_of(program.pid)
            known = trackers.under_madv_free(program.pid, before)
            [task] = pages.tasks_by_inner_pid([program.pid])
            precopy.send_frozen(task, program.pid, precopy.lacking(program.pid, before))
            vector = (ctypes.c_ulong * 2)(area, 64 * PAGE)
            pidfd = os.pidfd_open(program.pid)
            ctypes.CDLL(None).syscall(_PROCESS_MADVISE, pidfd, ctypes.byref(vector), 1, _MADV_PAGEOUT, 0)
            os.close(pidfd)
            precopy.close()
            target.end()
            found = list(trackers.differing(program.pid, stage / f"memory/{task}.mem", before))
            gone = trackers.taken(program.pid, before)
            target.store.close()
    finally:
        tasks.freeze(False)
        program.kill()
        program.communicate()
        tasks.wait_empty(10)
        directory.rmdir()
    assert known  # most of them: the kernel marks in batches
    assert known <= set(range(area, area + 32 * PAGE, PAGE))
    assert [at for at, _, _ in found] == sorted(gone)
    assert gone  # or the kernel took none, and this has shown nothing
    assert all(not any(here) and set(there) == {0x5A} for _, here, there in found)

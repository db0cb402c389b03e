"""What is said of memory that a running container lacks."""

from __future__ import annotations

import array
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.criu.later import SOCKET, Later
from agent.handover import lacking
from agent.handover.record import Move
from agent.linux import process

PAGE = 4096


@pytest.fixture
def move() -> Iterator[Move]:
    with tempfile.TemporaryDirectory() as path:
        move = Move(Path(path), "m1", "target")
        move.images.mkdir(parents=True)
        yield move


def test_each_task_with_its_ranges_and_where_they_lie(move: Move) -> None:
    """This process is the task; ranges that touch are one."""
    memory = mmap.mmap(-1, 8 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    task = process.inner_pid(os.getpid())
    stack = next(
        int(line.split("-")[0], 16) for line in Path("/proc/self/maps").read_text().splitlines() if "[stack]" in line
    )
    bounds = array.array("Q", [stack, stack + PAGE, PAGE, 2 * PAGE, 2 * PAGE, 4 * PAGE])
    (move.images / f"{task}.later").write_bytes(bounds.tobytes())
    with Later(move.images / SOCKET, move.images) as filler:
        answering = threading.Thread(target=filler.accept)
        answering.start()
        found = lacking.of([move], [os.getpid()])
        answering.join(5.0)
    memory.close()
    assert [(each.task, each.size_bytes, each.range_count) for each in found] == [(task, 4 * PAGE, 2)]
    assert found[0].program == Path("/proc/self/comm").read_text().strip()
    assert [(r.start, r.end, r.area) for r in found[0].ranges] == [
        (PAGE, 4 * PAGE, ""),
        (stack, stack + PAGE, "[stack]"),
    ]


def test_nobody_fills_it(move: Move) -> None:
    assert lacking.of([move], [os.getpid()]) == []

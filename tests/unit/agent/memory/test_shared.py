"""Shared memory as it is read, numbered and compared: a memfd of this process."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.memory.ranges import PAGE, Ranges, ranges
from agent.memory.shared import SEGMENT_BYTES, Segment, mapped
from agent.transfer.pages import page_addresses

pytestmark = pytest.mark.unit


@pytest.fixture
def memory() -> Iterator[int]:
    """100 pages, of which 10 to 19 and 50 to 54 were written: with their own number."""
    fd = os.memfd_create("memory")
    os.truncate(fd, 100 * PAGE)
    for page in [*range(10, 20), *range(50, 55)]:
        write(fd, page, page)
    yield fd
    os.close(fd)


@pytest.fixture
def segment(memory: int) -> Iterator[Segment]:
    segment = Segment(Path(f"/proc/self/fd/{memory}"))
    yield segment
    segment.close()


def write(fd: int, page: int, value: int) -> None:
    os.pwrite(fd, bytes([value]) * PAGE, page * PAGE)


def punch(fd: int, page: int) -> None:
    with mmap.mmap(fd, 100 * PAGE) as area:
        area.madvise(mmap.MADV_REMOVE, page * PAGE, PAGE)


def send(segment: Segment, of: Ranges) -> list[int]:
    """As a PageSender does: each page's first byte, as it goes."""
    firsts = []
    for start, end in of.tolist():
        into = bytearray(end - start)
        segment.read(memoryview(into), start // PAGE, end // PAGE)
        segment.sent(page_addresses(ranges([(start, end)])), np.frombuffer(into, np.uint64))
        firsts += list(into[::PAGE])
    return firsts


def test_pages_are_numbered_as_they_are_first_seen(memory: int, segment: Segment) -> None:
    """One after the other, without the holes; what is written later in a hole goes to the end."""
    assert segment.changed().tolist() == [[0, 15 * PAGE]]
    assert send(segment, segment.changed()) == [*range(10, 20), *range(50, 55)]
    assert not len(segment.changed())
    write(memory, 12, 99)
    write(memory, 3, 3)
    write(memory, 20, 20)
    assert segment.changed().tolist() == [[2 * PAGE, 3 * PAGE], [15 * PAGE, 17 * PAGE]]
    assert send(segment, segment.changed()) == [99, 3, 20]
    assert segment.runs.tolist() == [[10 * PAGE, 10], [50 * PAGE, 5], [3 * PAGE, 1], [20 * PAGE, 1]]


def test_a_page_given_back_is_sent_as_zeros(memory: int, segment: Segment) -> None:
    """And once only; written again it is sent again. Reading it fills nothing."""
    send(segment, segment.changed())
    punch(memory, 51)
    assert segment.changed().tolist() == [[11 * PAGE, 12 * PAGE]]
    assert send(segment, segment.changed()) == [0]
    assert not len(segment.changed())
    assert segment.populated().tolist() == [[10 * PAGE, 20 * PAGE], [50 * PAGE, 51 * PAGE], [52 * PAGE, 55 * PAGE]]
    write(memory, 51, 7)
    assert send(segment, segment.changed()) == [7]


def test_what_the_target_has_lost_is_changed(segment: Segment) -> None:
    send(segment, segment.changed())
    segment.forget(ranges([(PAGE, 3 * PAGE)]))
    assert segment.changed().tolist() == [[PAGE, 3 * PAGE]]


def test_memory_that_was_cut_off_reads_as_zeros(memory: int, segment: Segment) -> None:
    send(segment, segment.changed())
    os.truncate(memory, 52 * PAGE)
    assert send(segment, segment.changed()) == [0, 0, 0]


def test_small_memory_is_left_to_criu(memory: int) -> None:
    path = Path(f"/proc/self/fd/{memory}")
    assert Segment.opened(path) is None
    os.pwrite(memory, b"x" * SEGMENT_BYTES, 0)
    large = Segment.opened(path)
    assert large is not None
    large.close()


def test_shared_memory_of_a_process_is_found(memory: int, tmp_path: Path) -> None:
    """A memfd and nameless memory, each once; no private memory, no file."""
    (tmp_path / "file").write_bytes(bytes(PAGE))
    anonymous = mmap.MAP_ANONYMOUS
    file = os.open(tmp_path / "file", os.O_RDWR)
    before = mapped([os.getpid()])
    with (
        mmap.mmap(memory, PAGE),
        mmap.mmap(memory, PAGE),
        mmap.mmap(-1, PAGE, flags=mmap.MAP_SHARED | anonymous),
        mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | anonymous),
        mmap.mmap(file, PAGE),
    ):
        found = mapped([os.getpid()])
    os.close(file)
    assert len(found) - len(before) == 2
    assert os.fstat(memory).st_ino in {inode.number for inode in found}

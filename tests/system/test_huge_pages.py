"""Memory that arrives on a stage with huge pages: it is what was sent, little room is lost, and a full stage is an error."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import random
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.criu import images
from agent.linux import mounts
from agent.memory.ranges import PAGE
from agent.transfer import huge_pages
from agent.transfer.frames import FRAME_BYTES, BrokenStream, Kind, Reader
from agent.transfer.huge_pages import HUGE_BYTES
from agent.transfer.memory_store import MemoryStore
from agent.transfer.writer import Writer

pytestmark = pytest.mark.system

STAGE_BYTES = 64 << 20
HIGH = 0x7F00 << 32
TASK = 7


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tmpfs as a move's, on a host where a huge page is never dear."""
    monkeypatch.setattr(huge_pages, "_DEAR_S", 1e9)
    place = tmp_path / "stage"
    place.mkdir()
    mounts.mount("hp-stage", place, "tmpfs", 0, f"size={STAGE_BYTES},huge=advise")
    yield place
    mounts.umount(place, mounts.MNT_DETACH)


def sent(stage: Path, frames: Sequence[tuple[list[tuple[int, int]], bytes]]) -> tuple[MemoryStore, int]:
    """(the store that has taken them, how many of them were read to their place)."""
    read, write = os.pipe()
    store, reader, placed = MemoryStore(stage / "memory"), Reader(read), 0

    def feed() -> None:
        writer = Writer(write)
        with contextlib.suppress(BrokenStream):  # the store's error is the test's
            for runs, data in frames:
                if not data:
                    writer.send(Kind.ZERO, array.array("Q", [at for run in runs for at in run]).tobytes(), task=TASK)
                    continue
                writer.send(Kind.RUNS, array.array("Q", [at for run in runs for at in run]).tobytes(), task=TASK)
                writer.send(Kind.MEMORY, data, task=TASK, address=runs[0][0])
            writer.flush()
        writer.close()
        os.close(write)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        while (frame := reader.read(store.places)) is not None:
            placed += frame.placed
            assert store.take(frame)
    finally:
        os.close(read)  # after an error the writer would wait for ever
        thread.join()
    return store, placed


def used(stage: Path) -> int:
    of = os.statvfs(stage)
    return (of.f_blocks - of.f_bfree) * of.f_frsize


@pytest.mark.parametrize("seed", range(6))
def test_what_was_sent_is_there(stage: Path, seed: int) -> None:
    """Dense and scattered pages, new and again, taken away, at any offset from a huge page's beginning: each is the last that was sent,
    and all else is a hole, or a gap, and reads as zeros.
    """
    choose = random.Random(seed)
    expected: dict[int, bytes] = {}
    frames = []
    for number in range(60):
        at = HIGH + choose.randrange(8 * HUGE_BYTES // PAGE) * PAGE
        runs: list[tuple[int, int]] = []
        left = choose.choice((1, 16, FRAME_BYTES // PAGE))
        while left:
            count = min(left, choose.choice((1, 3, 40, 256)))
            runs.append((at, at + count * PAGE))
            at, left = at + (count + choose.choice((1, 2, 5))) * PAGE, left - count
        addresses = [page for start, end in runs for page in range(start, end, PAGE)]
        data = os.urandom(len(addresses) * PAGE) if number % 4 else b""  # nothing: they are zero now
        for n, page in enumerate(addresses):
            if data:
                expected[page] = data[n * PAGE : (n + 1) * PAGE]
            else:
                expected.pop(page, None)
        frames.append((runs, data))
    store, placed = sent(stage, frames)
    assert 0 < placed < len(frames)
    assert store._huge is not None
    gaps = {page for start, end in store._huge.gaps(store._file(TASK)).tolist() for page in range(start, end, PAGE)}
    assert not gaps & expected.keys()
    with (stage / f"memory/{TASK}.mem").open("rb") as memory:
        for page in range(HIGH, HIGH + 10 * HUGE_BYTES, PAGE):
            data = os.pread(memory.fileno(), PAGE, page)
            assert data == expected.get(page, bytes(len(data))), hex(page)
            if page not in expected and page not in gaps and len(data):
                assert not has_data(memory.fileno(), page), hex(page)
    store.close()


def has_data(fd: int, page: int) -> bool:
    """Whether it is no hole."""
    try:
        return os.lseek(fd, page, os.SEEK_DATA) == page
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return False
        raise


def test_a_region_that_is_full_costs_what_it_holds(stage: Path) -> None:
    """In order, from an odd address on, as a sender cuts it: all but its ends is placed."""
    start = HIGH + 5 * PAGE
    first = FRAME_BYTES - 5 * PAGE
    frames = [([(start, start + first)], os.urandom(first))]
    for n in range(1, 16):
        at = HIGH + n * FRAME_BYTES
        frames.append(([(at, at + FRAME_BYTES)], os.urandom(FRAME_BYTES)))
    store, placed = sent(stage, frames)
    store.close()
    assert placed == len(frames)
    assert used(stage) <= 16 * FRAME_BYTES + PAGE


def test_where_huge_pages_are_dear(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is tried, then small ones are taken, then one is tried again; what arrived is there either way."""
    monkeypatch.setattr(huge_pages, "_DEAR_S", 0.0)
    frames = [([(HIGH + n * HUGE_BYTES, HIGH + n * HUGE_BYTES + 64 * PAGE)], os.urandom(64 * PAGE)) for n in range(40)]
    store, placed = sent(stage, frames)
    store.close()
    assert placed == 2
    with (stage / f"memory/{TASK}.mem").open("rb") as memory:
        assert all(os.pread(memory.fileno(), len(data), runs[0][0]) == data for runs, data in frames)


def test_scattered_pages_cost_no_huge_ones(stage: Path) -> None:
    """A page here and there takes a page."""
    runs = [(HIGH + n * 97 * PAGE, HIGH + n * 97 * PAGE + PAGE) for n in range(256)]
    store, placed = sent(stage, [(runs, os.urandom(256 * PAGE))])
    store.close()
    assert placed == 0
    assert used(stage) <= 300 * PAGE


def test_regions_that_are_an_eighth_full(stage: Path) -> None:
    """What is lost in all is bounded: from there on such regions take small pages, and all fits that would fit without huge ones."""
    frames = []
    size = HUGE_BYTES // 8
    for n in range(160):  # 40 MiB of pages, 320 MiB of huge pages
        at = HIGH + n * HUGE_BYTES
        frames.append(([(at, at + size)], os.urandom(size)))
    store, placed = sent(stage, frames)
    store.close()
    assert 0 < placed < 20
    assert used(stage) <= 160 * size + STAGE_BYTES / 5 + HUGE_BYTES


def test_a_full_stage(stage: Path) -> None:
    """It is said as it is where pages are written, and nobody dies of a fault."""
    frames = []
    for n in range(STAGE_BYTES // FRAME_BYTES + 4):
        at = HIGH + n * FRAME_BYTES
        frames.append(([(at, at + FRAME_BYTES)], os.urandom(FRAME_BYTES)))
    with pytest.raises(OSError, match="No space left"):
        sent(stage, frames)


def test_what_comes_later_is_missing_though_it_reads_as_zeros(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Post-copy: in a huge page that half has arrived for, what was never written is no page of the filler's, what follows is."""
    runs = [(HIGH, HIGH + HUGE_BYTES // 2)]
    store, placed = sent(stage, [(runs, os.urandom(HUGE_BYTES // 2))])
    assert placed == 1
    later = (HIGH + HUGE_BYTES // 4, HIGH + HUGE_BYTES // 2 + 8 * PAGE)  # some of it has arrived, in an older version
    store.keep_back(TASK, [later])
    page_map = images.PageMap(TASK, 1, (images.Run(HIGH, HUGE_BYTES // PAGE, images.LAZY),))
    monkeypatch.setattr(images, "page_maps", lambda _pycriu, _directory: iter([page_map]))
    images_dir = stage / "images"
    images_dir.mkdir()
    assert store.seal_lazy(None, images_dir) == HUGE_BYTES // 2 + 8 * PAGE
    told = list(struct.iter_unpack("=QQ", (stage / "memory" / f"{TASK}.ranges").read_bytes()))
    assert told == [(HIGH, later[1])]
    with (stage / "memory" / f"{TASK}.mem").open("rb") as file:
        file.seek(later[0])
        assert not any(file.read(HUGE_BYTES // 4))
    store.close()

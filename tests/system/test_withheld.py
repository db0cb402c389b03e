"""What keeps memory out of CRIU's sight: the library as it is compiled here, loaded as CRIU loads it, and which areas it is told."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.memory import pagemap_scan
from agent.memory import withheld as areas_of
from agent.memory.areas import private_anonymous
from agent.memory.ranges import PAGE, ranges, subtract
from agent.setup import withheld

pytestmark = [pytest.mark.system, pytest.mark.needs("userfaultfd-wp")]

ROOT = Path(__file__).resolve().parents[2]
PAGES = 64
# Scans its own memory the way CRIU does, through whichever ioctl the loader gives it: before there is a list, and with one for process
# OFFSET from its own pid.
PROGRAM = f"""
import ctypes, json, mmap, os, struct, sys
sys.path.insert(0, {str(ROOT)!r})
from agent.memory import pagemap_scan
from agent.memory.ranges import ranges
memory = mmap.mmap(-1, {PAGES} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"x" * len(memory))
at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
def seen():
    found = pagemap_scan.populated(os.getpid(), ranges([(at, at + {PAGES} * 4096)]))
    return [[(start - at) // 4096, (end - at) // 4096] for start, end in found.tolist()]
before = seen()
with open(os.environ["MIGRATE_WITHHELD"], "wb") as file:
    for first, last in json.loads(sys.argv[1]):
        file.write(struct.pack("=QQQ", os.getpid() + int(sys.argv[2]), at + first * 4096, at + last * 4096))
print(json.dumps([before, seen()]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("withheld")
    assert "compiled" in withheld.ensure(directory)
    assert withheld.ensure(directory) == ""
    found = withheld.locate(directory)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ([], [[0, PAGES]]),
        ([[0, PAGES]], []),
        ([[0, 10]], [[10, PAGES]]),
        ([[10, 20], [50, PAGES]], [[0, 10], [20, 50]]),
        ([[0, 1], [1, 2], [30, 31]], [[2, 30], [31, PAGES]]),
    ],
)
def test_scan_ends_where_withheld_memory_begins(
    library: Path, tmp_path: Path, listed: list[list[int]], seen: list[list[int]]
) -> None:
    """A list that is written after the first scan counts; what it names is not seen, all else is."""
    assert scanned(library, tmp_path, listed, offset=0) == [[[0, PAGES]], seen]


def test_another_process_is_seen_whole(library: Path, tmp_path: Path) -> None:
    """A list names processes: the same addresses in another one are not its business."""
    assert scanned(library, tmp_path, [[0, PAGES]], offset=1) == [[[0, PAGES]], [[0, PAGES]]]


ASKED = """
import json, os, struct, sys
memory = os.memfd_create("x")
other = os.memfd_create("y")
for fd in memory, other:
    os.truncate(fd, 1 << 20)
    os.pwrite(fd, b"x" * 8192, 65536)
def first(fd):
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as exc:
        return exc.strerror
before = first(memory)
status = os.fstat(memory)
with open(os.environ["MIGRATE_WITHHELD"], "wb") as file:
    row = (0, status.st_ino + int(sys.argv[1]), os.major(status.st_dev) << 32 | os.minor(status.st_dev))
    file.write(struct.pack("=QQQ", *row))
print(json.dumps([before, first(memory), first(other), os.lseek(memory, 65536, os.SEEK_HOLE), os.lseek(memory, 7, os.SEEK_SET)]))
"""


@pytest.mark.parametrize(("offset", "seen"), [(0, "No such device or address"), (1 << 40, 65536)])
def test_shared_memory_that_is_listed_has_no_data(library: Path, tmp_path: Path, offset: int, seen: object) -> None:
    """The way CRIU asks for it; of other memory, and of all that is asked otherwise, nothing changes."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "MIGRATE_WITHHELD": str(tmp_path / "areas")}
    argv = [sys.executable, "-c", ASKED, str(offset)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [65536, seen, 65536, 65536 + 8192, 7]


def scanned(library: Path, tmp_path: Path, listed: list[list[int]], *, offset: int) -> list[list[list[int]]]:
    """What PROGRAM saw before and with the list."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "MIGRATE_WITHHELD": str(tmp_path / "areas")}
    argv = [sys.executable, "-c", PROGRAM, json.dumps(listed), str(offset)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    pieces: list[list[list[int]]] = json.loads(done.stdout)
    return pieces


@pytest.fixture
def large() -> Iterator[tuple[int, mmap.mmap]]:
    """32 MiB of this process, every second page written; and its address."""
    memory = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(memory), 2 * PAGE):
        memory[page] = 1
    hold = ctypes.c_char.from_buffer(memory)
    yield ctypes.addressof(hold), memory
    del hold
    memory.close()


def test_large_memory_is_withheld(large: tuple[int, mmap.mmap]) -> None:
    """All of a large area, with its holes; no small one; and what is listed is what the library reads."""
    address, memory = large
    areas = areas_of.look(os.getpid())
    assert any(start <= address and address + len(memory) <= end for start, end in areas.tolist())
    whole = [area for area in private_anonymous(os.getpid()) if area[1] - area[0] >= areas_of.AREA_BYTES]
    assert not len(subtract(areas, ranges(whole)))
    triples = list(struct.iter_unpack("=QQQ", areas_of.listing({os.getpid(): areas})))
    assert triples == [(os.getpid(), start, end) for start, end in areas.tolist()]


def test_populated_pages_are_those_that_were_written(large: tuple[int, mmap.mmap]) -> None:
    """Each once, in order: the kernel says the last of so many twice, for they fill its buffer just at the end."""
    address, memory = large
    found = pagemap_scan.populated(os.getpid(), ranges([(address, address + len(memory))]))
    assert found.tolist() == [[page, page + PAGE] for page in range(address, address + len(memory), 2 * PAGE)]


def test_locked_memory_is_left_to_criu(large: tuple[int, mmap.mmap]) -> None:
    """CRIU restores locked memory at once: nothing of such a process is withheld, until it unlocks."""
    address, _ = large
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(PAGE)) == 0
    try:
        assert not len(areas_of.look(os.getpid()))
    finally:
        assert libc.munlock(ctypes.c_void_p(address), ctypes.c_size_t(PAGE)) == 0
    assert len(areas_of.look(os.getpid()))

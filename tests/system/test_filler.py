"""The filler against the kernel's userfaultfd, in this process: what it is asked to fill it fills, whatever mappings it lies in."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.criu.filler import LOOK_MS, RESTORE_FINISHED, Filler, Memory, Task
from agent.criu.later import SOCKET, Later
from agent.criu.spaces import PAGE, Missing, Space
from agent.linux import libc, process

pytestmark = [pytest.mark.system, pytest.mark.needs("userfaultfd")]

_USERFAULTFD, _USER_MODE_ONLY = 323, 1  # asm/unistd_64.h, linux/userfaultfd.h
_API, _REGISTER, _MISSING = 0xC018AA3F, 0xC020AA00, 1
_UNREGISTER, _EVENT_REMOVE = 0x8010AA01, 1 << 3
PAGES = 12

_mprotect = libc.declare("mprotect", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise = libc.declare("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_memcpy = libc.declare("memcpy", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, restype=ctypes.c_void_p)
_munmap = libc.declare("munmap", ctypes.c_void_p, ctypes.c_size_t)


@pytest.fixture
def area() -> Iterator[int]:
    """Address of PAGES pages that are three mappings side by side, because the middle one is read-only."""
    memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    hold = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(hold)
    _mprotect(address + 5 * PAGE, 3 * PAGE, mmap.PROT_READ)
    yield address
    del hold
    memory.close()


@pytest.fixture
def task(area: int, tmp_path: Path) -> Task:
    """This process as the filler sees one: the area is registered, its pages are numbered in the memory file."""
    uffd = ctypes.CDLL(None, use_errno=True).syscall(_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    assert uffd >= 0
    fcntl.ioctl(uffd, _API, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
    fcntl.ioctl(uffd, _REGISTER, bytearray(struct.pack("<QQQQ", area, PAGES * PAGE, _MISSING, 0)))
    path = tmp_path / "1.mem"
    with path.open("wb") as file:
        for page in range(PAGES):
            file.write(bytes([page + 1]) * PAGE)
    everything = Missing(area, area + PAGES * PAGE, area)
    return Task(uffd, Memory(path), Space([everything]))


def first_bytes(area: int) -> list[int]:
    return [ctypes.string_at(area + page * PAGE, 1)[0] for page in range(PAGES)]


def test_piece_over_several_mappings(task: Task, area: int) -> None:
    """One missing range that reaches over mappings which touch is filled to the last page, not dropped where one copy is refused."""
    assert task.fill(task.space.ranges[0])
    assert not task.space
    task.close()  # from here a page that was not filled reads as zero, instead of waiting for ever
    assert first_bytes(area) == list(range(1, PAGES + 1))


def test_pages_that_are_gone_are_left_out(task: Task, area: int) -> None:
    """Where the process has unmapped pages in the middle, all others are filled."""
    hole = range(6, 8)
    _munmap(area + hole.start * PAGE, len(hole) * PAGE)
    assert task.fill(task.space.ranges[0])
    task.close()  # from here a page that was not filled reads as zero, instead of waiting for ever
    left = [page for page in range(PAGES) if page not in hole]
    assert [ctypes.string_at(area + page * PAGE, 1)[0] for page in left] == [page + 1 for page in left]


def test_hole_of_the_file_stays_a_hole(area: int, tmp_path: Path) -> None:
    """What has no contents is not filled, so that memory which was never written takes none; read there, it is zeros."""
    uffd = ctypes.CDLL(None, use_errno=True).syscall(_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    fcntl.ioctl(uffd, _API, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
    fcntl.ioctl(uffd, _REGISTER, bytearray(struct.pack("<QQQQ", area, PAGES * PAGE, _MISSING, 0)))
    path = tmp_path / "1.mem"
    with path.open("wb") as file:
        for page in (2, 3, 9):
            file.seek(page * PAGE)
            file.write(bytes([page]) * PAGE)
    whole = Missing(area, area + PAGES * PAGE, area)
    filled = Task(uffd, Memory(path), Space([whole]))
    assert filled.fill(whole)
    assert not filled.space
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        pagemap.seek(area // PAGE * 8)
        there = [bool(entry >> 63) for (entry,) in struct.iter_unpack("<Q", pagemap.read(PAGES * 8))]
    assert [page for page in range(PAGES) if there[page]] == [2, 3, 9]
    filled.close()
    assert first_bytes(area) == [page if page in (2, 3, 9) else 0 for page in range(PAGES)]


def test_a_page_that_is_away_is_asked_for_and_brought(area: int, task: Task) -> None:
    """Post-copy: a thread that touches a page still on the source waits; the page is asked for, and given when it has arrived."""
    asked: list[int] = []
    away = Space([Missing(area + 4 * PAGE, area + PAGES * PAGE, area)])
    here = Space([Missing(area, area + 4 * PAGE, area)])
    post = Task(task.uffd, task.memory, here, away, asked.append)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(_read(area + 9 * PAGE)), daemon=True)
    reader.start()
    _events_until(post, lambda: bool(asked))
    assert asked == [9 * PAGE]
    assert not seen
    post.arrived(8 * PAGE, PAGES * PAGE)
    reader.join(5.0)
    assert seen == [10]
    assert not post.complete
    post.arrived(4 * PAGE, 8 * PAGE)
    while (piece := post.space.first(PAGES * PAGE)) is not None:
        assert post.fill(piece)
    assert post.complete
    post.close()
    assert first_bytes(area) == list(range(1, PAGES + 1))


def test_who_waits_is_asked_for_again_when_another_receiver_comes(area: int, task: Task) -> None:
    asked: list[int] = []
    post = Task(task.uffd, task.memory, Space([]), Space([Missing(area, area + PAGES * PAGE, area)]), asked.append)
    reader = threading.Thread(target=lambda: _read(area + 2 * PAGE), daemon=True)
    reader.start()
    _events_until(post, lambda: bool(asked))
    post.ask_again()
    assert asked == [2 * PAGE, 2 * PAGE]
    post.arrived(0, PAGES * PAGE)
    reader.join(5.0)
    assert not reader.is_alive()
    post.close()


def test_who_waits_for_what_another_thread_throws_away_reads_zeros(area: int, task: Task) -> None:
    """Nobody brings that page any more; the one that waits must not wait for ever."""
    fcntl.ioctl(task.uffd, _UNREGISTER, bytearray(struct.pack("<QQ", area, PAGES * PAGE)))
    task.close()
    uffd = ctypes.CDLL(None, use_errno=True).syscall(_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    fcntl.ioctl(uffd, _API, bytearray(struct.pack("<QQQ", 0xAA, _EVENT_REMOVE, 0)))
    fcntl.ioctl(uffd, _REGISTER, bytearray(struct.pack("<QQQQ", area, PAGES * PAGE, _MISSING, 0)))
    asked: list[int] = []
    post = Task(uffd, task.memory, Space([]), Space([Missing(area, area + PAGES * PAGE, area)]), asked.append)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(_read(area + 2 * PAGE)), daemon=True)
    reader.start()
    _events_until(post, lambda: bool(asked))
    thrower = threading.Thread(target=lambda: _madvise(area + 2 * PAGE, PAGE, mmap.MADV_DONTNEED), daemon=True)
    thrower.start()  # it waits until its event has been read
    _events_until(post, lambda: bool(seen))
    thrower.join(5.0)
    assert seen == [0]
    post.close()


CHILD = """
import ctypes, fcntl, mmap, struct, sys
uffd = ctypes.CDLL(None).syscall(323, 0o2000000 | 0o4000 | 1)
fcntl.ioctl(uffd, 0xC018AA3F, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
memory = mmap.mmap(-1, 16 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(uffd, 0xC020AA00, bytearray(struct.pack("<QQQQ", address, 16 * 4096, 1, 0)))
print(uffd, address, flush=True)
sys.stdin.read()
"""


def test_a_filler_whose_tasks_were_killed_ends_though_pages_are_away(tmp_path: Path) -> None:
    """The end of an address space is no event: a container that was removed in a post-copy move left its filler for ever."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child, socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as criu:
        assert child.stdout
        number, address = (int(word) for word in child.stdout.readline().split())
        pidfd = os.pidfd_open(child.pid)
        uffd = process.pidfd_getfd(pidfd, number)
        os.close(pidfd)
        (tmp_path / "1.mem").write_bytes(b"")
        (tmp_path / "1.ranges").write_bytes(struct.pack("<QQ", address, address + 16 * PAGE))
        (tmp_path / "1.later").write_bytes(struct.pack("<QQ", address, address + 16 * PAGE))
        listener.bind(str(tmp_path / "lazy-pages.socket"))
        listener.listen(1)
        criu.connect(str(tmp_path / "lazy-pages.socket"))
        ended: list[int] = []
        with Later(tmp_path / SOCKET, tmp_path) as later:
            thread = threading.Thread(target=lambda: ended.append(Filler(listener, tmp_path, later).run()), daemon=True)
            thread.start()
            criu.send(struct.pack("<i", 1))
            socket.send_fds(criu, [b"x"], [uffd])
            criu.send(struct.pack("<i", RESTORE_FINISHED))
            os.close(uffd)
            thread.join(2.5 * LOOK_MS / 1000)
            assert thread.is_alive(), "it looked, and the task lives"
            child.kill()
            child.wait()
            thread.join(10.0)
    assert ended == [0]


def _read(address: int) -> int:
    """The byte there, by a call without the interpreter's lock: this thread waits for its page, and another one brings it."""
    byte = ctypes.create_string_buffer(1)
    _memcpy(ctypes.addressof(byte), address, 1)
    return byte.raw[0]


def _events_until(task: Task, done: Callable[[], bool]) -> None:
    until = time.monotonic() + 5.0
    while not done():
        assert time.monotonic() < until, "no fault was reported"
        task.events()
        time.sleep(0.005)

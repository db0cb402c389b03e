"""What the filler knows of pages that are still on the source, and tells whoever connects."""

from __future__ import annotations

import array
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.criu import later
from agent.criu.spaces import PAGE, Missing

TASK = 7


@pytest.fixture
def memory_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:  # short: a socket's path has at most 108 bytes
        yield Path(path)


@pytest.fixture
def filler(memory_dir: Path) -> Iterator[later.Later]:
    with later.Later(memory_dir / later.SOCKET, memory_dir) as end:
        yield end


def connect(filler: later.Later, memory_dir: Path) -> tuple[socket.socket, int]:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiver.settimeout(5.0)
    receiver.connect(str(memory_dir / later.SOCKET))
    return receiver, filler.accept()


def told(receiver: socket.socket) -> list[later.Record]:
    records: list[later.Record] = []
    while not records or records[-1][0] != later.END:
        records += later.unpack(receiver.recv(later.PACKET_BYTES))
    return records[:-1]


def write(memory_dir: Path, pages: list[tuple[int, int]]) -> None:
    bounds = array.array("Q", [page * PAGE for pair in pages for page in pair])
    (memory_dir / f"{TASK}.later").write_bytes(bounds.tobytes())


def test_without_post_copy_nothing_is_away(filler: later.Later, memory_dir: Path) -> None:
    assert filler.missing(TASK) == []
    receiver, _ = connect(filler, memory_dir)
    with receiver:
        assert told(receiver) == []


def test_who_looked_before_the_list_was_there_hides_nothing(filler: later.Later, memory_dir: Path) -> None:
    assert filler.missing(TASK) == []
    write(memory_dir, [(1, 2)])
    assert filler.missing(TASK) == [Missing(PAGE, 2 * PAGE)]


def test_the_next_receiver_is_told_what_has_not_come(filler: later.Later, memory_dir: Path) -> None:
    """More ranges than a packet holds; what the first one brought is not among them, what it only was asked for is."""
    pages = [(2 * n, 2 * n + 1) for n in range(1000)]
    write(memory_dir, pages)
    first, fd = connect(filler, memory_dir)
    with first:
        assert told(first) == [(later.MISSING, TASK, a * PAGE, b * PAGE) for a, b in pages]
        filler.ask(TASK, 40 * PAGE)
        assert later.unpack(first.recv(later.PACKET_BYTES)) == [(later.WANTED, TASK, 40 * PAGE, 41 * PAGE)]
        first.send(b"".join(later.pack([(later.ARRIVED, TASK, 0, 6 * PAGE)])))
        assert filler.read(fd) == [(TASK, 0, 6 * PAGE)]
    assert filler.read(fd) is None
    filler.hang_up(fd)
    second, _ = connect(filler, memory_dir)
    with second:
        assert told(second) == [(later.MISSING, TASK, a * PAGE, b * PAGE) for a, b in pages[3:]]


def test_a_receiver_that_has_gone_stops_nobody(filler: later.Later, memory_dir: Path) -> None:
    write(memory_dir, [(0, 4)])
    receiver, fd = connect(filler, memory_dir)
    receiver.close()
    filler.ask(TASK, 0)
    assert filler.read(fd) is None

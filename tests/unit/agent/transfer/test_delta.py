"""Pages sent again as what has changed in them: whatever happens in between, the target ends up with what the source has."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.memory.ranges import PAGE, Ranges, ranges
from agent.transfer.delta import Shadow
from agent.transfer.frames import Kind, Reader
from agent.transfer.memory_store import MemoryStore
from agent.transfer.pages import PageSender
from agent.transfer.writer import Writer

pytestmark = pytest.mark.unit

TASK, PAGES = 3, 24
# What happens to a page before a round: nothing, a word is written, all of it is, it becomes zero, it becomes what it was at first.
changes = st.lists(st.lists(st.sampled_from("-wazo"), min_size=PAGES, max_size=PAGES), min_size=1, max_size=7)


class Wire:
    """Pages of this process into a MemoryStore."""

    def __init__(self, room_pages: int) -> None:
        self._map = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.words = np.frombuffer(self._map, np.uint64).reshape(PAGES, -1)
        self.start = self.words.ctypes.data
        self._directory = Path(f"/dev/shm/migrate-test-delta-{os.getpid()}")
        self.store = MemoryStore(self._directory)
        receive, self._send = os.pipe()
        self._taken = threading.Semaphore(0)
        self.kinds: list[Kind] = []
        self._thread = threading.Thread(target=self._take, args=(receive,))
        self._thread.start()
        self.writer = Writer(self._send)
        self.sender = PageSender(
            self.writer, TASK, os.getpid(), lambda *_: None, shadow=Shadow(room_pages * PAGE) if room_pages else None
        )

    def _take(self, receive: int) -> None:
        reader = Reader(receive)
        while (frame := reader.read()) is not None:
            self.kinds.append(frame.kind)
            if not self.store.take(frame):
                self._taken.release()
        os.close(receive)

    def send(self, wanted: Ranges) -> None:
        self.sender.send(wanted, exact=True)
        self.writer.send(Kind.ROUND)
        assert self._taken.acquire(timeout=20)

    def everything(self) -> Ranges:
        return ranges([(self.start, self.start + PAGES * PAGE)])

    def arrived(self) -> bytes:
        with (self._directory / f"{TASK}.mem").open("rb") as file:
            file.seek(self.start)
            return file.read(PAGES * PAGE).ljust(PAGES * PAGE, b"\0")

    def close(self) -> None:
        self.writer.close()
        os.close(self._send)
        self._thread.join()
        self.store.close()
        for path in self._directory.iterdir():
            path.unlink()
        self._directory.rmdir()


@given(changes, st.sampled_from([0, 1, 5, PAGES]), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_every_round_arrives(rounds: list[list[str]], room: int, random: object) -> None:
    """Whatever is written, forgotten, or too much for the shadow; nothing is asked for again, so every difference was right."""
    numbers = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]  # may raise: before there are threads
    wire = Wire(room)
    first = numbers.integers(1, 2**63, wire.words.shape, np.uint64)
    try:
        wire.words[:] = first
        wire.send(wire.everything())
        for change in rounds:
            for page, what in enumerate(change):
                if what == "w":
                    wire.words[page, numbers.integers(512)] += np.uint64(1)
                elif what == "a":
                    wire.words[page] = numbers.integers(1, 2**63, 512, np.uint64)
                elif what == "z":
                    wire.words[page] = 0
                elif what == "o":
                    wire.words[page] = first[page]
            at = wire.start
            wire.send(ranges((at + n * PAGE, at + n * PAGE + PAGE) for n, what in enumerate(change) if what != "-"))
            assert wire.store.lacking() == {}
            assert wire.arrived() == wire.words.tobytes()
    finally:
        wire.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire(PAGES)
    made.words[:] = np.random.default_rng(1).integers(1, 2**63, made.words.shape, np.uint64)
    yield made
    made.close()


def test_little_changes_are_little(wire: Wire) -> None:
    """The third version of a page goes as a difference, a hundredth of its size; the second does not, nor one that is all new."""
    for expected in ([Kind.MEMORY], [Kind.MEMORY], [Kind.BASE, Kind.DELTA]):
        wire.kinds.clear()
        before = wire.writer.sent_bytes
        wire.words[:, 7] += np.uint64(1)
        wire.send(wire.everything())
        assert wire.kinds == [*expected, Kind.ROUND]
        sent = wire.writer.sent_bytes - before
        assert sent < PAGES * PAGE / 50 if Kind.DELTA in expected else sent > PAGES * PAGE
    wire.kinds.clear()
    wire.words[:] = np.random.default_rng(2).integers(1, 2**63, wire.words.shape, np.uint64)
    wire.send(wire.everything())
    assert wire.kinds == [Kind.MEMORY, Kind.ROUND]


def test_a_difference_to_something_else_is_found_out(wire: Wire) -> None:
    """A page of the target changes behind everybody's back: what comes out has another digest, and is asked for."""
    for _ in range(2):
        wire.words[:, 7] += np.uint64(1)
        wire.send(wire.everything())
    wire.store.write(TASK, [(wire.start, wire.start + PAGE)], memoryview(b"x" * PAGE))
    wire.words[:, 7] += np.uint64(1)
    wire.send(wire.everything())
    lacking = ranges(wire.store.lacking()[TASK])
    assert lacking.tolist() == wire.everything().tolist()
    wire.sender.distrust(lacking)
    wire.send(lacking)
    assert wire.store.lacking() == {}
    assert wire.arrived() == wire.words.tobytes()

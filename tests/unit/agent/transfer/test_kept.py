"""Pages that the target has already: named, compared, and asked for where they are something else."""

from __future__ import annotations

import dataclasses
import mmap
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from agent.config import AgentConfig
from agent.errors import TransferError
from agent.handover.kept import KeptMemory
from agent.memory.ranges import PAGE, ranges
from agent.transfer import kept, page_digest
from agent.transfer.frames import FRAME_BYTES, Frame, Kind, Reader
from agent.transfer.kept import Keeper, Kept
from agent.transfer.memory_store import MemoryStore
from agent.transfer.page_index import PageIndex
from agent.transfer.pages import PageSender
from agent.transfer.writer import Writer

pytestmark = pytest.mark.unit

TASK = 7
rounds = st.lists(st.dictionaries(st.integers(0, 40), st.integers(0, 3), max_size=12), max_size=6)


@given(rounds)
def test_an_index_is_a_dictionary(changes: list[dict[int, int]]) -> None:
    """Of pages noted twice the later counts, through a file and back too; forgotten ones are gone."""
    index, expected = PageIndex(), {}
    for change in changes:
        addresses = np.array(sorted(change), np.uint64) * np.uint64(PAGE)
        digests = np.array([change[page] for page in sorted(change)], np.uint64)
        index.task(TASK).note(addresses, digests, addresses)
        expected.update(change)
    for each in (index, PageIndex.unpacked(index.packed(places=True), places=True)):
        pages = each.task(TASK)
        pages.settle()
        found = {int(a) // PAGE: int(d) for a, d in zip(pages.addresses, pages.digests, strict=True)}
        assert found == expected
        assert (pages.places == pages.addresses).all()
        asked = np.arange(41, dtype=np.uint64)
        same = pages.same(asked * np.uint64(PAGE), np.full(41, 2, np.uint64))
        assert same.tolist() == [expected.get(page) == 2 for page in range(41)]
        pages.forget(asked[:20] * np.uint64(PAGE))
        assert {int(a) // PAGE for a in pages.addresses} == {page for page in expected if page >= 20}


def test_an_index_that_is_none() -> None:
    """Something else, or one that was cut, at any byte, or damaged."""
    index, some = PageIndex(), np.arange(100, dtype=np.uint64)
    index.task(TASK).note(some * np.uint64(PAGE), some, some)
    whole = index.packed(places=True)
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(20, len(whole), 7)]
    for data in (b"", b"x" * 100, *(whole[:length] for length in range(0, len(whole), 5)), *damaged):
        with pytest.raises(TransferError, match="none"):
            PageIndex.unpacked(data, places=True)


class Memory:
    """Some pages of this process, sent from it as if it were a task."""

    def __init__(self, pages: int) -> None:
        self._map = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.words = np.frombuffer(self._map, np.uint64).reshape(pages, -1)
        at = self.words.ctypes.data
        self.all = ranges([(at, at + pages * PAGE)])

    @property
    def bytes(self) -> bytes:
        return self.words.tobytes()


class Move:
    """From this process into a MemoryStore at `directory`, with what is kept on either side."""

    def __init__(self, directory: Path, *, before: Path | None, keep: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.kinds: list[Kind] = []
        self._taken = threading.Event()
        there = Kept(before) if before else None
        self.store = MemoryStore(directory / "memory", there)
        receive, self._send = os.pipe()
        self._thread = threading.Thread(target=self._take, args=(receive,))
        self._thread.start()
        self.writer, self.keeper = Writer(self._send), Keeper(keep, 1 << 30)
        known = PageIndex.unpacked(there.index.packed(places=False), places=False) if there else PageIndex()
        self.sender = PageSender(
            self.writer, TASK, os.getpid(), lambda *_: None, kept=known.task(TASK), keeper=self.keeper
        )

    def _take(self, receive: int) -> None:
        reader = Reader(receive)
        while (frame := reader.read()) is not None:
            self.kinds.append(frame.kind)
            if not self.store.take(frame):
                self._taken.set()
        os.close(receive)

    def send(self, memory: Memory) -> int:
        count = self.sender.send(memory.all, exact=True)[0]
        self.writer.send(Kind.ROUND)
        assert self._taken.wait(20)
        self._taken.clear()
        return count

    def end(self) -> dict[int, list[tuple[int, int]]]:
        """What the target lacks."""
        self.writer.flush()
        self.writer.close()
        os.close(self._send)
        self._thread.join()
        assert self.keeper.finish() > 0
        return self.store.lacking()

    def arrived(self, memory: Memory) -> bytes:
        (start, end), size = memory.all.tolist()[0], len(memory.bytes)
        with (self._directory / f"memory/{TASK}.mem").open("rb") as file:
            file.seek(start)
            return file.read(size).ljust(end - start, b"\0")


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[Path]:
    """On a tmpfs: the files of memory have the size of an address space."""
    directory = Path("/dev/shm") / f"migrate-test-{os.getpid()}-{tmp_path.name}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def filled(pages: int) -> Memory:
    memory = Memory(pages)
    memory.words[:] = np.random.default_rng(pages).integers(1, 2**63, memory.words.shape, np.uint64)
    memory.words[3:20:4] = 0
    return memory


def test_there_and_back(shm: Path, tmp_path: Path) -> None:
    """The second move sends the pages that have changed since the first, and the target has all of it."""
    memory = filled(700)
    first = Move(shm / "1", before=None, keep=tmp_path / "kept")
    assert first.send(memory) == 695
    assert first.end() == {}
    assert first.arrived(memory) == memory.bytes
    memory.words[[0, 5, 300, 301, 699]] += np.uint64(1)
    memory.words[400] = 0
    second = Move(shm / "2", before=tmp_path / "kept", keep=tmp_path / "again")
    assert second.send(memory) == 5
    assert second.end() == {}
    assert second.arrived(memory) == memory.bytes
    assert Kind.KEPT in second.kinds
    assert second.sender.skipped["kept"] == 689 * PAGE
    third = Move(shm / "3", before=tmp_path / "again", keep=tmp_path / "thrice")
    assert third.send(memory) == 0  # what was known was kept as well
    assert third.end() == {}
    assert third.arrived(memory) == memory.bytes


def test_a_page_that_was_written_and_is_what_it_was(shm: Path, tmp_path: Path) -> None:
    """It is named, not sent; one that went to zero and back is sent again."""
    memory = filled(300)
    move = Move(shm / "1", before=None, keep=tmp_path / "kept")
    before = memory.words.copy()
    move.send(memory)
    assert move.send(memory) == 0
    memory.words[10] = 0
    move.send(memory)
    memory.words[:] = before
    assert move.send(memory) == 1
    assert move.end() == {}
    assert move.arrived(memory) == memory.bytes
    assert Kind.SAME in move.kinds


def test_kept_pages_that_are_damaged(shm: Path, tmp_path: Path) -> None:
    """They are never used: the target asks for them, and then they come."""
    memory = filled(600)
    first = Move(shm / "1", before=None, keep=tmp_path / "kept")
    first.send(memory)
    first.end()
    with (tmp_path / "kept" / kept.PAGES).open("r+b") as file:
        file.seek(256 * PAGE)
        file.write(b"rot")
    second = Move(shm / "2", before=tmp_path / "kept", keep=tmp_path / "again")
    assert second.send(memory) == 0
    lacking = ranges(second.store.lacking()[TASK])
    second.sender.distrust(lacking)
    assert 0 < second.sender.send(lacking, exact=True)[0] <= FRAME_BYTES // PAGE
    assert second.end() == {}
    assert second.arrived(memory) == memory.bytes


def test_a_digest_that_collides_does_no_harm(shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page has the same page_digest: nothing is taken for something else, for content is compared."""
    monkeypatch.setattr(page_digest, "of", lambda pages: np.full(len(pages), 5, np.uint64))
    memory = filled(300)
    memory.words[memory.words[:, 0] == 0] = 1
    first = Move(shm / "1", before=None, keep=tmp_path / "kept")
    first.send(memory)
    first.end()
    memory.words[:] += np.uint64(1)
    second = Move(shm / "2", before=tmp_path / "kept", keep=tmp_path / "again")
    assert second.send(memory) == 0
    lacking = ranges(second.store.lacking()[TASK])
    assert lacking.tolist() == memory.all.tolist()
    second.sender.distrust(lacking)
    assert second.sender.send(lacking, exact=True)[0] == 300
    assert second.end() == {}
    assert second.arrived(memory) == memory.bytes


def test_frames_that_name_too_much(tmp_path: Path) -> None:
    """More than a frame holds, or addresses that no task has."""
    store = MemoryStore(Path("/dev/shm") / f"migrate-test-{os.getpid()}")
    for start, size in ((0, FRAME_BYTES + PAGE), (1 << 47, PAGE), (100, PAGE)):
        payload = xxhash.xxh3_128_digest(b"") + np.array([start, start + size], np.uint64).tobytes()
        with pytest.raises(TransferError):
            store.take(Frame(Kind.SAME, TASK, 0, 0, memoryview(payload)))
    store.close()
    (Path("/dev/shm") / f"migrate-test-{os.getpid()}").rmdir()


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And stops nobody."""

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    keeper = Keeper(tmp_path / "kept", 1 << 30)
    slot = SimpleNamespace(view=memoryview(bytes(PAGE)), hold=lambda: None, release=lambda: None)
    one = np.array([PAGE], np.uint64)
    for _ in range(3):
        keeper.keep(slot, TASK, one, one, frozen=False)  # type: ignore[arg-type]
    assert keeper.finish() == 0
    assert "No space" in keeper.error


def test_where_it_lies(tmp_path: Path) -> None:
    """Of a move under way apart; the newest of each container; what is too old or too much goes, the oldest first."""
    config = AgentConfig(host="host1", state_dir=tmp_path, kept_memory_mb=1, kept_memory_hours=1)
    memory = KeptMemory(config)
    for number, size in enumerate((400 << 10, 400 << 10, 500 << 10)):
        place, limit = memory.place(f"m{number}")
        assert 0 < limit <= 1 << 20
        place.mkdir(parents=True)
        (place / kept.PAGES).write_bytes(os.urandom(size))
        assert memory.find(f"c{number}") == ""
        memory.settle(f"m{number}", f"c{number}")
        os.utime(config.kept_dir / f"c{number}", (config.kept_dir.stat().st_mtime - 100 + number,) * 2)
    memory.sweep()
    assert [bool(memory.find(f"c{number}")) for number in range(3)] == [False, True, True]
    os.utime(config.kept_dir / "c1", (1, 1))
    memory.sweep()
    assert [bool(memory.find(f"c{number}")) for number in range(3)] == [False, False, True]
    memory.place("m9")[0].mkdir()
    memory.drop("m9")
    memory.forget("c2")
    assert list(config.kept_dir.iterdir()) == []
    assert KeptMemory(dataclasses.replace(config, kept_memory_mb=0)).place("m")[1] == 0

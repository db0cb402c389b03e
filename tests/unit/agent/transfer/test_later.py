"""Post-copy's relay: what the source sends after the resume, in which order, and what the target's side tells the filler of it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.criu.later import SOCKET, Later
from agent.criu.spaces import PAGE, Missing
from agent.errors import TransferError
from agent.transfer import later
from agent.transfer.frames import Answers, Kind, Reader
from agent.transfer.memory_store import MemoryStore
from agent.transfer.writer import Writer

TASK = 7
MB = 1 << 20


class Memory:
    """Of one frozen task: each page holds its number. `wrong`: pages that are sent as something else the first time."""

    def __init__(self, writer: Writer, wrong: set[int]) -> None:
        self.writer, self.wrong = writer, wrong
        self.pieces: list[tuple[int, int]] = []

    def send(self, task: int, start: int, end: int) -> int:
        self.pieces.append((start, end))
        content = b"".join((at // PAGE).to_bytes(8, "little") * (PAGE // 8) for at in range(start, end, PAGE))
        self.writer.send(Kind.MEMORY, content, task=task, address=start, size=end - start)
        return (end - start) // PAGE

    def distrust(self, lacking: later.Lacking) -> None:
        for pairs in lacking.values():
            self.wrong -= {at // PAGE for start, end in pairs for at in range(start, end, PAGE)}


class Target:
    """The receiver's loop over a real store, and the filler's end of the socket."""

    def __init__(self, directory: Path, wrong: set[int]) -> None:
        self.filler = Later(directory / SOCKET, directory)
        self.store, self.wrong, self.directory = MemoryStore(directory), wrong, directory
        self.arrived: list[tuple[int, int]] = []
        rx, self.tx = os.pipe()
        self.answers_rx, answers_tx = os.pipe()
        self.arrivals = later.Arrivals(directory, directory, answers_tx)
        self._reader, self._answers_tx = Reader(rx), answers_tx
        self._filler_fd = -1

    def connect(self) -> dict[int, later.Pairs]:
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        missing = self.arrivals.connect()
        accepting.join(5.0)
        return missing

    def run(self) -> None:
        """Until the stream ends."""
        while frame := self._reader.read():
            if self.store.take(frame):
                continue
            if frame.kind == Kind.LATER:
                self.arrivals.keep_back(frame)
            elif frame.kind == Kind.HERE:
                pages = range(frame.address // PAGE, (frame.address + frame.size) // PAGE)
                bad = [(page * PAGE, (page + 1) * PAGE) for page in pages if page in self.wrong]
                self.arrivals.here(frame, {TASK: bad} if bad else {})
                if not bad:
                    self.arrived += [(a, b) for _, a, b in self.filler.read(self._filler_fd) or []]

    def _accept(self) -> None:
        self._filler_fd = self.filler.accept()

    def close(self) -> None:
        self.arrivals.close()
        self.filler.__exit__()
        self.store.close()


@pytest.fixture
def made() -> Iterator[Callable[[set[int]], tuple[Target, Writer, Memory]]]:
    targets: list[Target] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:  # short, for the socket; and offsets as in a process

        def make(wrong: set[int]) -> tuple[Target, Writer, Memory]:
            target = Target(Path(path), wrong)
            targets.append(target)
            writer = Writer(target.tx)
            return target, writer, Memory(writer, wrong)

        yield make
        for target in targets:
            target.close()


def relay(
    made: tuple[Target, Writer, Memory], pairs: later.Pairs, asked: int | None = None
) -> tuple[dict[str, Any], Target, Memory]:
    """All of `pairs` is kept back and then sent; `asked`: an offset that a task waits for from the beginning."""
    target, writer, memory = made
    (target.directory / f"{TASK}.later").write_bytes(b"")
    with (target.directory / f"{TASK}.later").open("ab") as file:
        for pair in pairs:
            file.write(b"".join(each.to_bytes(8, "little") for each in pair))
    missing = target.connect()
    assert missing == {TASK: pairs}
    if asked is not None:
        target.filler.ask(TASK, asked)
    running = threading.Thread(target=target.run)
    answers = Answers(target.answers_rx)
    if asked is not None:
        assert not answers.ready()  # a question is no answer to HELLO or DONE, which still comes
    target.arrivals.ask()
    if asked is not None:
        while not answers.ready():
            pass
    running.start()
    rest = later.Rest(missing)
    if asked is not None:
        rest.want(*answers.next()["want"])
    sent = later.send_rest(rest, writer, answers.next, answers.ready, memory, lambda _: None)
    writer.close()
    os.close(target.tx)
    running.join(10.0)
    assert not running.is_alive()
    return sent, target, memory


def test_all_arrives_once(made: Callable[[set[int]], tuple[Target, Writer, Memory]]) -> None:
    pairs = [(0, 3 * MB), (16 * MB, 16 * MB + 5 * PAGE)]
    sent, target, memory = relay(made(set()), pairs)
    assert sent["bytes"] == 3 * MB + 5 * PAGE
    assert memory.pieces == [(0, MB), (MB, 2 * MB), (2 * MB, 3 * MB), (16 * MB, 16 * MB + 5 * PAGE)]
    assert target.arrived == memory.pieces
    with (target.directory / f"{TASK}.mem").open("rb") as file:
        for page in (0, 300, 767, 4100):
            file.seek(page * PAGE)
            assert int.from_bytes(file.read(8), "little") == page


def test_what_somebody_waits_for_comes_first(made: Callable[[set[int]], tuple[Target, Writer, Memory]]) -> None:
    """With its neighbours, and not a second time."""
    sent, _, memory = relay(made(set()), [(0, 8 * MB)], asked=5 * MB + PAGE)
    assert memory.pieces[0] == (5 * MB, 5 * MB + later.PREFETCH_BYTES)
    assert sent["asked"] == 1
    assert sum(end - start for start, end in memory.pieces) == 8 * MB


def test_a_piece_that_is_not_what_it_should_be_comes_again(
    made: Callable[[set[int]], tuple[Target, Writer, Memory]],
) -> None:
    """Nobody is told of it before."""
    sent, target, memory = relay(made({300}), [(0, 3 * MB)])
    assert memory.pieces.count((MB, 2 * MB)) == 2
    assert sorted(target.arrived) == [(0, MB), (MB, 2 * MB), (2 * MB, 3 * MB)]
    assert target.filler.missing(TASK) == []
    assert sent["pages"] == 4 * MB // PAGE


def test_a_filler_that_does_not_answer_is_not_one_that_lacks_nothing(tmp_path: Path) -> None:
    assert later.still_missing(tmp_path) is None  # there is none
    with tempfile.TemporaryDirectory() as short, Later(Path(short) / SOCKET, Path(short)):
        limit, later.FILLER_ANSWERS_S = later.FILLER_ANSWERS_S, 0.05
        try:
            with pytest.raises(TransferError, match="did not say what is missing"):
                later.still_missing(Path(short))
        finally:
            later.FILLER_ANSWERS_S = limit


def test_pages_that_somebody_waits_for_twice() -> None:
    rest = later.Rest({TASK: [(0, 4 * MB)]})
    rest.want(TASK, 0)
    rest.want(TASK, PAGE)
    assert rest.next() == (TASK, Missing(0, later.PREFETCH_BYTES))
    assert rest.next() == (TASK, Missing(later.PREFETCH_BYTES, later.PREFETCH_BYTES + MB))


def test_memory_of_a_task_that_has_ended_is_lost_and_all_other_comes(
    made: Callable[[set[int]], tuple[Target, Writer, Memory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said at the end, and what is lost still counts as missing."""
    target, writer, memory = made(set())
    (target.directory / "3.later").write_bytes(b"".join(each.to_bytes(8, "little") for each in (0, 4 * PAGE)))
    send = memory.send
    monkeypatch.setattr(memory, "send", lambda task, start, end: None if task == 3 else send(task, start, end))
    (target.directory / f"{TASK}.later").write_bytes(b"".join(each.to_bytes(8, "little") for each in (0, 2 * MB)))
    rest = later.Rest(target.connect())
    running = threading.Thread(target=target.run)
    running.start()
    answers = Answers(target.answers_rx)
    with pytest.raises(TransferError, match=r"tasks have ended here .*: 3") as caught:
        later.send_rest(rest, writer, answers.next, answers.ready, memory, lambda _: None)
    assert caught.value.code == later.LOST
    writer.close()
    os.close(target.tx)
    running.join(10.0)
    assert target.arrived == [(0, MB), (MB, 2 * MB)]
    assert target.filler.missing(3) == [Missing(0, 4 * PAGE)]

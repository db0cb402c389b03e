"""Frames that go over several connections: all come, in the order in which they were sent, and one that falls takes all with it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from agent.errors import TransferError
from agent.transfer import lanes
from agent.transfer.bandwidth import Bandwidth
from agent.transfer.frames import FRAME_BYTES, BrokenStream, Kind, Reader
from agent.transfer.lanes import STRIPED_BYTES
from agent.transfer.writer import BATCH_BYTES, Writer

pytestmark = pytest.mark.unit


class Pipes:
    """One for each lane."""

    def __init__(self, count: int) -> None:
        pairs = [os.pipe() for _ in range(count)]
        self.read, self.write = [one for one, _ in pairs], [other for _, other in pairs]

    def close(self, fds: list[int]) -> None:
        for fd in fds:
            with suppress(OSError):
                os.close(fd)


@pytest.fixture(params=[1, 2, 3])
def pipes(request: pytest.FixtureRequest) -> Iterator[Pipes]:
    made = Pipes(request.param)
    yield made
    made.close([*made.read, *made.write])


def reader_of(fds: list[int]) -> Reader:
    return Reader(fds[0], fds[1:], partial(lanes.await_header, fds))


@pytest.mark.parametrize("rate", [0, 200 << 20])
def test_all_frames_come_in_their_order(pipes: Pipes, rate: int) -> None:
    """Large and small ones, out of a buffer that is used again and copied, with a limit and without; both sides have one digest."""
    choose = random.Random(len(pipes.read))
    sizes = [choose.choice((0, 1, 4096, STRIPED_BYTES - 1, STRIPED_BYTES, 700_000, FRAME_BYTES)) for _ in range(80)]
    sent: list[bytes] = []
    digest: list[str] = []

    def feed() -> None:
        writer = Writer(*pipes.write, bandwidth=Bandwidth(rate))
        for number, size in enumerate(sizes):
            data = choose.randbytes(size)
            sent.append(data)
            if size % 4096 == 0 and size:
                slot = writer.slot()
                slot.view[:size] = data
                writer.send(Kind.MEMORY, slot.view[:size], task=number, slot=slot)
                slot.view[size:BATCH_BYTES]
                slot.release()
            else:
                writer.send(Kind.TREE, data, task=number)
        digest.append(writer.digest)
        writer.send(Kind.DONE, lambda text: text.encode())
        writer.flush()
        pipes.close(pipes.write)
        writer.close()

    thread = threading.Thread(target=feed)
    thread.start()
    reader = reader_of(pipes.read)
    for number in range(len(sizes)):
        frame = reader.read()
        assert frame is not None
        assert (frame.task, len(frame.payload)) == (number, sizes[number])
        assert bytes(frame.payload) == sent[number]
    last = reader.read()
    thread.join()
    assert last is not None
    assert bytes(last.payload).decode() == reader.digest == digest[0]
    assert reader.read() is None


def test_large_payloads_go_by_all_lanes() -> None:
    """One after the other: none has more than its share, and a small one follows its header."""
    made = lanes.Lanes([0, 1, 2], Bandwidth(), lambda _size, _seconds: None)
    assert [made.choose(STRIPED_BYTES) for _ in range(6)] == [1, 2, 0, 1, 2, 0]
    assert made.choose(STRIPED_BYTES - 1) == 0
    assert lanes.Lanes([7], Bandwidth(), lambda _size, _seconds: None).choose(FRAME_BYTES) == 0


def test_connections_say_which_one_they_are() -> None:
    """sshd hands them over in whatever order they log in."""
    made = Pipes(3)
    lanes.introduce(made.write)
    shuffled = [made.read[2], made.read[0], made.read[1]]
    assert lanes.order(shuffled) == [1, 2, 0]
    lanes.introduce(made.write[:2])  # of another move, or another try
    made.close(made.write)
    with pytest.raises(TransferError, match="do not fit together"):
        lanes.order(made.read)
    made.close(made.read)


def test_a_reader_is_told_when_another_connection_has_ended() -> None:
    """It would wait for a header that nobody sends any more; where the first one has something to say, that comes first."""
    made = Pipes(2)
    writer = Writer(*made.write)
    writer.send(Kind.ROUND, b"{}")
    writer.flush()
    os.close(made.write[1])
    reader = reader_of(made.read)
    assert (reader.read() or pytest.fail("no frame")).kind == Kind.ROUND
    with pytest.raises(TransferError, match="connection 2 of 2"):
        reader.read()
    os.close(made.write[0])
    assert reader.read() is None  # all of them: a clean end
    writer.close()
    made.close(made.read)


def test_a_writer_fails_when_one_connection_breaks() -> None:
    """With the error of a stream that nobody takes, in the caller's thread; nobody waits for ever for a buffer."""
    made = Pipes(3)
    os.close(made.read[2])
    writer = Writer(*made.write)
    drained = threading.Thread(target=lambda: [iter(partial(os.read, fd, 1 << 20), b"") for fd in made.read[:2]])
    drained.start()
    with pytest.raises(BrokenStream):
        for _ in range(200):
            slot = writer.slot()
            try:
                writer.send(Kind.MEMORY, slot.view[:STRIPED_BYTES], slot=slot)
            finally:
                slot.release()
            writer.flush()
    made.close(made.read[:2])
    writer.close()
    made.close(made.write)
    drained.join()

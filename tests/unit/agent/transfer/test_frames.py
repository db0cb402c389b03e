"""Frames: what goes in comes out, and nothing else passes for one."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import TransferError
from agent.transfer.frames import FRAME_BYTES, Answers, Frame, Kind, Reader, say
from agent.transfer.writer import Writer

pytestmark = pytest.mark.unit

frames = st.lists(
    st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=300), st.integers(0, 2**32 - 1), st.integers(0, 2**47)),
    max_size=6,
)


def through_a_pipe(data: bytes) -> int:
    """The read end of a pipe that gives `data`, then ends."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(data)

    threading.Thread(target=feed, daemon=True).start()
    return read


def written(*todo: tuple[Kind, bytes]) -> bytes:
    """What a Writer makes of frames."""
    read, write = os.pipe()
    writer = Writer(write)
    for kind, payload in todo:
        writer.send(kind, payload)
    writer.flush()
    writer.close()
    os.close(write)
    with os.fdopen(read, "rb") as file:
        return file.read()


@given(frames)
@settings(deadline=None)
def test_round_trip(todo: list[tuple[Kind, bytes, int, int]]) -> None:
    """Every field of every frame arrives, in order, and both ends agree on the digest."""
    read, write = os.pipe()
    writer, reader = Writer(write), Reader(read)
    for kind, payload, task, address in todo:
        writer.send(kind, payload, task=task, address=address, size=len(payload))
        frame = reader.read()
        assert frame is not None
        assert (frame.kind, bytes(frame.payload), frame.task, frame.address, frame.size) == (
            kind,
            payload,
            task,
            address,
            len(payload),
        )
    digest = writer.digest
    writer.send_json(Kind.DONE, {"digest": digest})
    done = reader.read()
    assert done is not None
    assert done.json()["digest"] == reader.digest == digest
    os.close(write)
    assert reader.read() is None
    os.close(read)
    assert reader.received_bytes == writer.sent_bytes
    writer.close()


def test_the_largest_frame() -> None:
    """A frame of FRAME_BYTES fits."""
    data = os.urandom(FRAME_BYTES)
    fd = through_a_pipe(written((Kind.HELLO, b"{}")))
    assert Reader(fd).read() is not None
    os.close(fd)
    read, write = os.pipe()
    thread = threading.Thread(target=lambda: Writer(write).send(Kind.MEMORY, data), daemon=True)
    thread.start()
    frame = Reader(read).read()
    assert isinstance(frame, Frame)
    assert bytes(frame.payload) == data
    thread.join()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("position", [0, 2, 9, 20, 30, 33])
def test_damage_is_noticed(position: int) -> None:
    """One flipped bit anywhere in header or payload never gives the same frame."""
    raw = bytearray(written((Kind.MEMORY, b"p" * 64)))
    raw[position] ^= 1
    fd = through_a_pipe(bytes(raw))
    try:
        frame = Reader(fd).read()
        assert frame is None or (frame.kind, frame.task, frame.address, frame.size) != (Kind.MEMORY, 0, 0, 0)
    except TransferError:
        pass  # the usual end
    os.close(fd)


def test_a_cut_stream() -> None:
    """An end inside a frame is an error, between frames it is the end."""
    raw = written((Kind.MEMORY, b"p" * 64))
    for length in (1, 31, 32, 95):
        fd = through_a_pipe(raw[:length])
        with pytest.raises(TransferError, match="middle of a frame"):
            Reader(fd).read()
        os.close(fd)


def test_answers_say_no_in_their_own_words() -> None:
    """A refusal of the target is raised with its reason; so is its silence."""
    read, write = os.pipe()
    answers = Answers(read)
    say(write, {"ok": True, "n": 1})
    say(write, {"ok": False, "error": "no room"})
    assert answers.next()["n"] == 1
    with pytest.raises(TransferError, match="no room"):
        answers.next()
    os.close(write)
    with pytest.raises(TransferError, match="host down"):
        answers.next(lambda: "host down")
    os.close(read)

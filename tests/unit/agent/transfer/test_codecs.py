"""Packed frames: every codec gives back what went in, and what is damaged is never taken for something else."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import TransferError
from agent.transfer import codec_choice, codecs
from agent.transfer.codec_choice import Auto, Fixed, choose
from agent.transfer.codecs import RAW, Codec, Setting
from agent.transfer.frames import FRAME_BYTES, HEADER_BYTES, Kind, Reader
from agent.transfer.writer import BATCH_BYTES, SLOTS, Writer

pytestmark = pytest.mark.unit

SETTINGS = [RAW, Setting(Codec.LZ4), Setting(Codec.ZSTD, 1), Setting(Codec.ZSTD, 3)]
# Of everything between what does not shrink at all and what nearly vanishes.
contents = st.one_of(
    st.binary(max_size=5000),
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 3000)).map(lambda pair: pair[0] * pair[1]),
)


def sent(payloads: list[bytes], setting: Setting) -> bytes:
    """The stream of a Writer that packs."""
    read, write = os.pipe()
    parts: list[bytes] = []

    def drain() -> None:
        with os.fdopen(read, "rb") as file:
            parts.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    writer = Writer(write, choice=Fixed(setting))
    for number, payload in enumerate(payloads):
        writer.send(Kind.MEMORY, payload, task=number)
    writer.flush()
    writer.close()
    os.close(write)
    thread.join()
    return parts[0]


def received(stream: bytes) -> list[bytes]:
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(stream)

    threading.Thread(target=feed, daemon=True).start()
    reader, found = Reader(read), []
    try:
        while frame := reader.read():
            assert frame.task == len(found)
            found.append(bytes(frame.payload))
    finally:
        os.close(read)
    return found


@given(st.lists(contents, max_size=5), st.sampled_from(SETTINGS))
@settings(deadline=None)
def test_round_trip(payloads: list[bytes], setting: Setting) -> None:
    """In order, whatever the codec, whichever thread was faster."""
    assert received(sent(payloads, setting)) == payloads


@pytest.mark.parametrize("setting", SETTINGS[1:])
def test_what_shrinks_is_packed_and_what_does_not_goes_as_it_is(setting: Setting) -> None:
    assert len(sent([b"page " * 20_000], setting)) < 2_000
    noise = os.urandom(100_000)
    assert len(sent([noise], setting)) == len(noise) + HEADER_BYTES


@pytest.mark.parametrize("setting", SETTINGS[1:])
def test_a_damaged_frame(setting: Setting) -> None:
    """Any bit of a packed payload, and a size that is a lie: an error, never other content."""
    stream = sent([b"abcdefgh" * 500 + os.urandom(64)], setting)
    for position in [20, *range(HEADER_BYTES, len(stream), 3)]:  # 20: the size that it unpacks to
        damaged = bytearray(stream)
        damaged[position] ^= 0x10
        with pytest.raises(TransferError):
            received(bytes(damaged))


@pytest.mark.parametrize("flags", [0x03, 0x0F, 0x40])
def test_an_unknown_codec(flags: int) -> None:
    stream = bytearray(sent([b"x" * 600], RAW))
    stream[3] = flags
    with pytest.raises(TransferError, match=r"codec|no frame"):
        received(bytes(stream))


def test_a_frame_that_claims_to_unpack_to_more_than_a_frame() -> None:
    """It is not unpacked at all."""
    stream = bytearray(sent([b"x" * 6000], Setting(Codec.ZSTD, 1)))
    stream[20:24] = (FRAME_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(TransferError, match="no frame"):
        received(bytes(stream))


def test_a_slow_link_reaches_back() -> None:
    """Who fills buffers waits when all are on their way, and no buffer is filled again before it was read at the pipe's other end."""
    read, write = os.pipe()
    writer = Writer(write, choice=Fixed(Setting(Codec.LZ4)))
    filled: list[int] = []

    def fill() -> None:
        for number in range(SLOTS + 4):
            slot = writer.slot()
            slot.view[:] = bytes([number]) * BATCH_BYTES
            for at in range(0, BATCH_BYTES, FRAME_BYTES):
                writer.send(Kind.FILE, slot.view[at : at + FRAME_BYTES], slot=slot)  # a kind that is never packed
            slot.release()
            filled.append(number)

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join(0.5)
    assert len(filled) <= SLOTS  # a pipe holds less than one frame
    reader = Reader(read)
    for number in range((SLOTS + 4) * (BATCH_BYTES // FRAME_BYTES)):
        frame = reader.read()
        assert frame is not None
        assert set(bytes(frame.payload)) == {number // (BATCH_BYTES // FRAME_BYTES)}
    thread.join()
    writer.close()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("link", "limit", "idle", "codec", "level"),
    [
        (0.0, 0.0, 1.0, Codec.NONE, 0),  # nothing is known yet
        (500e6, 0.0, 1.0, Codec.NONE, 0),
        (200e6, 0.0, 0.5, Codec.LZ4, 0),
        (200e6, 0.0, 0.1, Codec.NONE, 0),  # the processors are the limit
        (100e6, 0.0, 0.5, Codec.ZSTD, 1),
        (10e6, 0.0, 0.5, Codec.ZSTD, 3),
        (500e6, 50e6, 0.1, Codec.ZSTD, 1),  # a limit says nothing of processors
        (10e6, 50e6, 0.1, Codec.NONE, 0),  # the link is slower than the limit, and nobody is idle
        (0.0, 10e6, 1.0, Codec.ZSTD, 3),
    ],
)
def test_the_choice(link: float, limit: float, idle: float, codec: Codec, level: int) -> None:
    assert choose(link, limit, idle) == Setting(codec, level)


class _NoLimit:
    rate = 0


def test_auto_follows_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow link is packed for; data that does not shrink goes as it is for a while; a link that is fast now is believed in time."""
    ticks = iter((number * 1000, number * 1000) for number in range(1000))  # all idle
    monkeypatch.setattr(codec_choice, "_cpu_ticks", lambda: next(ticks))
    auto = Auto(_NoLimit())
    assert auto.setting() == RAW
    auto.wrote(codec_choice.FIRST_LOOK_BYTES, codec_choice.FIRST_LOOK_BYTES / 50e6)
    assert auto.setting() == Setting(Codec.ZSTD, 1)
    auto.packed(codec_choice.FIRST_LOOK_BYTES, codec_choice.FIRST_LOOK_BYTES)
    assert auto.setting() == RAW
    auto.wrote(codec_choice.RETRY_BYTES, codec_choice.RETRY_BYTES / 50e6)
    assert auto.setting() == Setting(Codec.ZSTD, 1)
    seen = []
    for _ in range(12):
        auto.wrote(codec_choice.LOOK_EVERY_BYTES, codec_choice.LOOK_EVERY_BYTES / 2e9)
        seen.append(auto.setting().codec)
    assert seen[0] == Codec.ZSTD  # one fast look is not believed: behind a codec every link looks fast
    assert Codec.LZ4 in seen
    assert seen[-1] == Codec.NONE


def test_names() -> None:
    """Those of the command line."""
    assert codecs.NAMES == ("auto", "none", "lz4", "zstd")

"""The connections of one move, each an ssh of its own: what is sent is spread over them, and read in the order in which it was sent.

    writer ─► lane 0 ═ headers, in order; small payloads; its share of the large ones ═► reader: a header says in which lane
       └────► lane 1, 2, ... ═ large payloads only, one after the other ══════════════►  its payload comes, and that one is read next

So nothing is numbered and nothing is sorted: while the reader takes one payload, the pipes and ssh's windows of the other lanes fill. What
is gained is ssh: a processor for each, and a TCP window each on a long way. The lanes of a move fall together. One lane is the rule, and
then all of this is a plain descriptor.
"""

from __future__ import annotations

import queue
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xxhash

from agent.errors import TransferError
from agent.linux import pipes
from agent.memory.ranges import PAGE
from agent.transfer.bandwidth import PIECE_BYTES, Bandwidth
from agent.transfer.frames import (
    FRAME_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    BrokenStream,
    Kind,
    read_exactly,
    write_all,
)

MOST = 8  # sshd lets ten at once log in (MaxStartups)
STRIPED_BYTES = 64 << 10  # smaller payloads follow their header
_SPLICED_BYTES = FRAME_BYTES // 2  # shorter frames are copied: many of them in the pipe would hold as many buffers
_QUEUE = 4  # payloads that wait for one lane
_CLOSE_LIMIT_S = 5.0

Body = bytes | memoryview


class Held(Protocol):
    """A buffer that is used again when nobody holds it (writer.Slot)."""

    def hold(self) -> None: ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class _Job:
    head: bytes
    body: Body
    slot: Held | None
    done: threading.Event | None = None


class Lanes:
    """Into `fds`. `wrote(bytes, seconds)`: told of each write, waiting for a limit not counted. One thread calls it."""

    def __init__(self, fds: Sequence[int], bandwidth: Bandwidth, wrote: Callable[[int, float], None]) -> None:
        self._lanes = [_Lane(fd, bandwidth) for fd in fds]
        self._wrote, self._next = wrote, 0
        self._queues: list[queue.Queue[_Job | None]] = [queue.Queue(_QUEUE) for _ in fds] if len(fds) > 1 else []
        self._threads: list[threading.Thread] = []
        self.error: Exception | None = None

    def choose(self, size: int) -> int:
        """The lane for a payload of `size` bytes: one after the other."""
        if size < STRIPED_BYTES or not self._queues:
            return 0
        self._next = (self._next + 1) % len(self._lanes)
        return self._next

    def write(self, lane: int, header: bytes, body: Body, slot: Held | None) -> None:
        """A frame; of several lanes each writes in its own time. `slot`: what `body` lies in, whole pages. Raises BrokenStream."""
        if not self._queues:
            self._write(0, _Job(header, body, slot))
            return
        self._start()
        for number, job in ((0, _Job(header, b"", None)), (lane, _Job(b"", body, slot))):
            if job.slot:
                job.slot.hold()
            self._queues[number].put(job)
        if self.error:
            raise self.error

    def flush(self) -> None:
        """Returns when all is written, or given up."""
        events = [threading.Event() for _ in self._threads]
        for each, event in zip(self._queues, events, strict=False):
            each.put(_Job(b"", b"", None, event))
        for event in events:
            event.wait()

    def close(self) -> None:
        """Give up what waits. Idempotent."""
        self.error = self.error or OSError("the stream was given up")
        for each, thread in zip(self._queues, self._threads, strict=False):
            each.put(None)
            thread.join(_CLOSE_LIMIT_S)
        self._threads = []

    def _start(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, args=(number,), name=f"lane {number}", daemon=True)
                for number in range(len(self._lanes))
            ]
            for thread in self._threads:
                thread.start()

    def _run(self, number: int) -> None:
        while (job := self._queues[number].get()) is not None:
            try:
                if self.error is None and (job.head or len(job.body)):
                    self._write(number, job)
            except Exception as exc:  # noqa: BLE001  raised again in the caller's thread
                self.error = exc
            finally:
                if job.slot:
                    job.slot.release()
                if job.done:
                    job.done.set()

    def _write(self, number: int, job: _Job) -> None:
        began = time.monotonic()
        waited = self._lanes[number].write(job.head, job.body, job.slot)
        self._wrote(len(job.head) + len(job.body), (time.monotonic() - began - waited) / len(self._lanes))


class _Lane:
    """One descriptor."""

    def __init__(self, fd: int, bandwidth: Bandwidth) -> None:
        self._fd, self._bandwidth = fd, bandwidth
        self._pipe_pages = pipes.pages(fd)
        self._spliced_pages = 0
        self._in_pipe: deque[tuple[Held, int]] = deque()  # and how many pages had been spliced with its last one

    def write(self, head: bytes, body: Body, slot: Held | None) -> float:
        """Returns how long it waited for leave."""
        if self._bandwidth.rate:
            return self._drip(head, body)
        if slot is not None and len(body) >= _SPLICED_BYTES and self._pipe_pages:
            if head:
                write_all(self._fd, head)
            self._splice(slot, memoryview(body))
        elif head:
            write_all(self._fd, head, body)
        else:
            write_all(self._fd, body)
        return 0.0

    def _splice(self, slot: Held, body: memoryview) -> None:
        """`body`: whole pages in `slot`, which is held for as long as they may be in the pipe."""
        slot.hold()
        self._spliced_pages += len(body) // PAGE
        self._in_pipe.append((slot, self._spliced_pages))
        try:
            pipes.vmsplice(self._fd, np.frombuffer(body, np.uint8).ctypes.data, len(body))
        except BrokenPipeError as exc:
            raise BrokenStream("the stream to the target is broken") from exc
        while self._in_pipe[0][1] <= self._spliced_pages - self._pipe_pages:
            self._in_pipe.popleft()[0].release()

    def _drip(self, head: bytes, body: Body) -> float:
        """In pieces, as fast as it may."""
        waited = 0.0
        whole = memoryview(b"".join((head, body)))
        for at in range(0, len(whole), PIECE_BYTES):
            piece = whole[at : at + PIECE_BYTES]
            asked = time.monotonic()
            self._bandwidth.take(len(piece))
            waited += time.monotonic() - asked
            write_all(self._fd, piece)
        return waited


# ---------------------------------------------------------------- which is which


def introduce(fds: Sequence[int]) -> None:
    """The first frame of each of several connections: JOIN says which one it is, for they arrive in any order. Raises BrokenStream."""
    for number, fd in enumerate(fds):
        write_all(fd, HEADER.pack(MAGIC, Kind.JOIN, 0, number, 0, 0, len(fds), xxhash.xxh3_64_intdigest(b"")))


def order(fds: Sequence[int]) -> list[int]:
    """Where in `fds` lane 0, 1, ... is, of those that introduce() was called for. Raises TransferError when they are not that."""
    if len(fds) == 1:
        return [0]
    found: dict[int, int] = {}
    for place, fd in enumerate(fds):
        header = bytearray(HEADER_BYTES)
        read_exactly(fd, header)
        magic, kind, _, number, _, _, count, _ = HEADER.unpack(header)
        if (magic, kind, count) != (MAGIC, Kind.JOIN, len(fds)) or number in found or number >= count:
            raise TransferError("the connections of the move do not fit together", hint="start the move again")
        found[number] = place
    return [found[number] for number in range(len(fds))]


def await_header(fds: Sequence[int]) -> None:
    """Returns when lane 0 has something to say, or has ended. Raises TransferError when another one has ended without it: it would be
    waited for in vain.
    """
    poll = select.poll()
    poll.register(fds[0], select.POLLIN)
    for fd in fds[1:]:
        poll.register(fd, 0)
    ready = dict(poll.poll())
    if fds[0] in ready:
        return
    first = select.poll()
    first.register(fds[0], select.POLLIN)
    if not first.poll(1000):  # at a move's end all are closed, one after the other
        number = next(number for number, fd in enumerate(fds) if fd in ready)
        raise TransferError(f"connection {number + 1} of {len(fds)} between the two hosts has ended")

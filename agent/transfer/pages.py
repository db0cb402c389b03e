"""Read the memory of tasks from outside and send what is not zero. One reused buffer, no work per page in Python."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.memory.ranges import NOTHING, PAGE, Ranges, intersect, ranges, union
from agent.transfer.frames import FRAME_BYTES, Kind, Writer

_WORDS = PAGE // 8

OnRead = Callable[[int, NDArray[np.uint64], NDArray[np.uint64]], None]


class PageSender:
    """Sends pages of one task. `task`: its pid inside the container, `pid`: on this host. `on_read(pid, addresses, words)` gets
    whole pages as they are sent, zero or not, and the address of each.

    `held`: whatever the target has any version of, from before too, when the task was another process.
    """

    def __init__(self, writer: Writer, task: int, pid: int, on_read: OnRead, held: Ranges = NOTHING) -> None:
        self._writer, self.task, self.pid, self._on_read = writer, task, pid, on_read
        self._buffer = np.empty(FRAME_BYTES // 8, np.uint64)
        self._view = self._buffer.data.cast("B")
        self.held = held

    def send(self, wanted: Ranges, *, exact: bool) -> tuple[int, Ranges]:
        """Send `wanted`; returns pages sent, without the zero pages, and what of `wanted` the target has now as it was read.

        Not `exact`: the task runs; what cannot be read any more is left out and not counted as sent. Exact: the task is frozen, and
        an unreadable page raises OSError.
        """
        sent_pages = 0
        reached: list[tuple[int, int]] = []
        zeros: list[tuple[int, int]] = []
        memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, end in _chunks(wanted):
                length = self._read(memory, start, end - start, exact=exact)
                if not length:
                    continue
                reached.append((start, start + length))
                addresses = np.arange(start, start + length, PAGE, dtype=np.uint64)
                self._on_read(self.pid, addresses, self._buffer[: length // 8])
                for offset, size, zero in _split_zero(self._buffer[: length // 8]):
                    if zero:
                        zeros.append((start + offset, start + offset + size))
                    else:
                        sent_pages += size // PAGE
                        self._writer.send(
                            Kind.MEMORY, self._view[offset : offset + size], task=self.task, address=start + offset
                        )
        finally:
            os.close(memory)
        # A hole is a zero page already: only where the target has another version it must hear of it.
        for start, end in intersect(ranges(zeros), self.held).tolist():
            self._writer.send(Kind.ZERO, task=self.task, address=start, size=end - start)
        self.held = union(self.held, ranges(reached))
        return sent_pages, ranges(reached)

    def _read(self, memory: int, start: int, length: int, *, exact: bool) -> int:
        """Bytes read into the buffer, whole pages."""
        done = 0
        while done < length:
            try:
                got = os.preadv(memory, [self._view[done:length]], start + done)
            except OSError:
                if exact:
                    raise
                break
            if got == 0:
                break
            done += got
        return done - done % PAGE


def _chunks(of: Ranges) -> Iterator[tuple[int, int]]:
    for start, end in of.tolist():
        for at in range(start, end, FRAME_BYTES):
            yield at, min(at + FRAME_BYTES, end)


def _split_zero(words: NDArray[np.uint64]) -> Iterator[tuple[int, int, bool]]:
    """(offset, bytes, is zero) runs of a buffer of whole pages."""
    full: NDArray[np.bool_] = np.any(words.reshape(-1, _WORDS), axis=1)
    edges = np.flatnonzero(np.diff(full)) + 1
    bounds = [0, *edges.tolist(), len(full)]
    for first, last in itertools.pairwise(bounds):
        if last > first:
            yield first * PAGE, (last - first) * PAGE, not full[first]


def tasks_by_inner_pid(pids: Iterable[int]) -> dict[int, int]:
    """{pid inside the container: pid on this host} of host pids; those that have gone are left out."""
    found: dict[int, int] = {}
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
        if line:
            found[int(line.split()[-1])] = pid
    return found

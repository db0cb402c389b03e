"""Read the memory of tasks from outside and send what the target lacks. Work is some megabytes at a time, nothing a page in Python."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import xxhash
from numpy.typing import NDArray

from agent.linux import process, process_memory
from agent.memory.ranges import NOTHING, PAGE, Ranges, intersect, ranges, subtract, total_bytes
from agent.transfer import codecs, page_digest
from agent.transfer.delta import Shadow, TaskShadow
from agent.transfer.frames import FRAME_BYTES, Kind
from agent.transfer.kept import Keeper
from agent.transfer.page_digest import Digests
from agent.transfer.page_index import Addresses, TaskPages
from agent.transfer.writer import BATCH_BYTES, Slot, Writer

WORDS = PAGE // 8
FRAME_PAGES = FRAME_BYTES // PAGE
Mask = NDArray[np.bool_]
_NO_PLACES = np.zeros(BATCH_BYTES // PAGE, np.uint64)


OnRead = Callable[[int, Addresses, NDArray[np.uint64]], None]


class PageSender:
    """Sends pages of one task. `task`: its pid inside the container, `pid`: on this host. `on_read(pid, addresses, words)` gets
    whole pages as they are sent, zero or not, and the address of each.

    `held`: whatever the target has any version of, from before too, when the task was another process; not where that is zeros. `kept`:
    what the target has of an earlier move. `keeper`: keeps what is read here for the next one. `shadow`: room for
    pages that are sent again and again; None = they are always sent whole.
    """

    def __init__(
        self,
        writer: Writer,
        task: int,
        pid: int,
        on_read: OnRead,
        held: Ranges = NOTHING,
        *,
        kept: TaskPages | None = None,
        keeper: Keeper | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._writer, self.task, self.pid, self._on_read = writer, task, pid, on_read
        # Joined when it is asked for: that takes as long as there are ranges, and is seldom needed in the freeze.
        self._held = [held]
        self._kept, self._keeper = kept or TaskPages(), keeper
        self._shadow = TaskShadow(shadow) if shadow else None
        self._sent = TaskPages()  # in earlier rounds: pages are written that do not change
        self.skipped: Counter[str] = Counter()  # bytes that were not sent, by reason

    @property
    def held(self) -> Ranges:
        if len(self._held) > 1:
            self._held = [_joined(self._held)]
        return self._held[0]

    @held.setter
    def held(self, value: Ranges) -> None:
        self._held = [value]

    def send(self, wanted: Ranges, *, exact: bool) -> tuple[int, Ranges]:
        """Send `wanted`; returns pages sent, without those that are skipped, and what of `wanted` the target has now as it was read.

        Not `exact`: the task runs; what cannot be read any more is left out and not counted as sent. Exact: the task is frozen, and
        an unreadable page raises OSError.
        """
        sent_pages = 0
        self._sent.settle()
        reached: list[Ranges] = []
        zeros: list[Ranges] = []
        memory = self._open()
        try:
            for batch in batches(wanted):
                slot = self._writer.slot()
                try:
                    addresses = self._read(memory, slot, batch, exact=exact)
                    if len(addresses):
                        reached.append(to_ranges(addresses))
                        self._on_read(self.pid, addresses, slot.words[: len(addresses) * WORDS])
                        sent_pages += self._send_read(slot, addresses, zeros, frozen=exact)
                finally:
                    slot.release()
        finally:
            os.close(memory)
            # Also when the task ends half way: another one may get its pid, and must not find what was sent of this one.
            before, self._held = self._held, [*self._held, *reached]
        if zeros:  # a hole is a zero page already: only where the target has another version it must hear of it
            self._send_zeros(intersect(_joined(zeros), _joined(before)))
            self.held = subtract(self.held, _joined(zeros))
        return sent_pages, _joined(reached)

    def settle(self) -> None:
        """Sort what has been noted of the pages sent: a send does that first, and the one in the freeze shall find it done."""
        self._sent.settle()
        if self._shadow:
            self._shadow.settle()

    def drop(self, gone: Ranges) -> None:
        """The target shall hold nothing of `gone`: as in memory that was never written, it finds zeros there."""
        dropped = intersect(gone, self.held)
        if len(dropped):
            self._send_zeros(dropped)
            self.distrust(dropped)
            self.held = subtract(self.held, dropped)

    def _send_read(self, slot: Slot, addresses: Addresses, zeros: list[Ranges], *, frozen: bool) -> int:
        """What was read into `slot`, page by page of `addresses`; returns pages sent."""
        pages = _pages(slot, len(addresses))
        digests = page_digest.of(pages)
        zero = page_digest.zero(pages, digests)
        self._sent.note(addresses, digests, _NO_PLACES[: len(addresses)])
        if not zero.any():
            return self._send_pages(slot, addresses, digests, frozen=frozen)
        zeros.append(to_ranges(addresses[zero]))
        if self._shadow:
            self._shadow.forget(addresses[zero])
        self.skipped["zero"] += int(zero.sum()) * PAGE
        if zero.all():
            return 0
        with self._some_of(slot, ~zero) as rest:
            return self._send_pages(rest, addresses[~zero], digests[~zero], frozen=frozen)

    def _send_pages(self, slot: Slot, addresses: Addresses, digests: Digests, *, frozen: bool) -> int:
        """Pages that are not zero; returns those that were sent."""
        if self._keeper is not None:
            self._keeper.keep(slot, self.task, addresses, digests, frozen=frozen)
        same = self._sent.same(addresses, digests)
        kept = self._kept.same(addresses, digests) & ~same
        for kind, there in ((Kind.SAME, same), (Kind.KEPT, kept)):
            if there.any():
                self._send_known(kind, _pages(slot, len(addresses)), addresses, there)
        if self._shadow:
            self._shadow.forget(addresses[kept])
        wanted = ~(same | kept)
        if wanted.all():
            self._send_changed(slot, addresses)
        elif wanted.any():
            with self._some_of(slot, wanted) as rest:
                self._send_changed(rest, addresses[wanted])
        return int(wanted.sum())

    def _send_changed(self, slot: Slot, addresses: Addresses) -> None:
        """Pages that the target has not as they are: what changed in them where that is little, else all of them."""
        again = self._sent.find(addresses)[1]
        if self._shadow is None or not again.any():
            self._send_memory(slot, addresses)
            return
        pages, changes = _pages(slot, len(addresses)), self._writer.slot()
        try:
            little = self._shadow.differences(addresses, pages, again, _pages(changes, len(addresses)))
            if little.any():
                self._send_delta(changes, pages[little], addresses[little])
        finally:
            changes.release()
        if not little.any():
            self._send_memory(slot, addresses)
        elif not little.all():
            with self._some_of(slot, ~little) as rest:
                self._send_memory(rest, addresses[~little])

    def _send_delta(self, changes: Slot, content: NDArray[np.uint64], addresses: Addresses) -> None:
        for part in _frames(len(addresses)):
            digest = xxhash.xxh3_128_digest(content[part].data.cast("B"))
            self._writer.send(Kind.BASE, digest + to_ranges(addresses[part]).tobytes(), task=self.task)
            view = changes.view[part.start * PAGE : part.stop * PAGE]
            self._writer.send(Kind.DELTA, view, task=self.task, slot=changes, setting=codecs.FIXED["lz4"])

    def _send_known(self, kind: Kind, pages: NDArray[np.uint64], addresses: Addresses, there: Mask) -> None:
        """Name pages that the target has; it compares the digest of what it has, and asks for them if that is something else."""
        content, addresses = (pages, addresses) if there.all() else (pages[there], addresses[there])
        for part in _frames(len(addresses)):
            digest = xxhash.xxh3_128_digest(content[part].data.cast("B"))
            self._writer.send(kind, digest + to_ranges(addresses[part]).tobytes(), task=self.task)
        self.skipped["kept" if kind == Kind.KEPT else "unchanged"] += content.nbytes

    def _send_memory(self, slot: Slot, addresses: Addresses) -> None:
        for part in _frames(len(addresses)):
            runs, view = to_ranges(addresses[part]), slot.view[part.start * PAGE : part.stop * PAGE]
            if len(runs) > 1:
                self._writer.send(Kind.RUNS, runs.tobytes(), task=self.task)
            first = int(runs[0, 0])
            self._writer.send(Kind.MEMORY, view, task=self.task, address=first, size=len(view), slot=slot)

    @contextmanager
    def _some_of(self, slot: Slot, wanted: Mask) -> Iterator[Slot]:
        """Another buffer with only those pages: the first one is still being read."""
        other = self._writer.slot()
        try:
            count = int(wanted.sum())
            # clip: the way of numpy's that writes straight into `out`; no index is outside
            np.take(_pages(slot, len(wanted)), np.flatnonzero(wanted), axis=0, out=_pages(other, count), mode="clip")
            yield other
        finally:
            other.release()

    def distrust(self, wrong: Ranges) -> None:
        """The target has not what was named there: it is sent when it comes next."""
        self._kept.forget(page_addresses(wrong))
        self.outdate(wrong)

    def outdate(self, runs: Ranges) -> None:
        """The target has no version of them any more that was sent in this move."""
        addresses = page_addresses(runs)
        self._sent.forget(addresses)
        if self._shadow:
            self._shadow.forget(addresses)

    def _send_zeros(self, zeros: Ranges) -> None:
        for at in range(0, len(zeros), FRAME_BYTES // 16):
            self._writer.send(Kind.ZERO, zeros[at : at + FRAME_BYTES // 16].tobytes(), task=self.task)

    def _open(self) -> int:
        """A descriptor of what _read() reads from."""
        return os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def _read(self, memory: int, slot: Slot, batch: Ranges, *, exact: bool) -> Addresses:
        """Fill `slot` with `batch`; returns the addresses of the pages that are in it, one after the other."""
        wanted = total_bytes(batch)
        vector = batch.copy()
        vector[:, 1] -= vector[:, 0]
        try:
            if process_memory.read(self.pid, slot.address, wanted, vector.ctypes.data, len(vector)) == wanted:
                return page_addresses(batch)
        except OSError as exc:
            if exc.errno not in (errno.EFAULT, errno.EPERM, errno.ENOSYS):
                raise
        # PROT_NONE, which /proc/PID/mem reads all the same; or a range that is gone.
        reached: list[tuple[int, int]] = []
        at = 0
        for start, end in batch.tolist():
            got = _read_range(memory, slot.view[at : at + end - start], start, exact=exact)
            reached.append((start, start + got))
            at += got
        return page_addresses(ranges(reached))


def _pages(slot: Slot, count: int) -> NDArray[np.uint64]:
    return slot.words[: count * WORDS].reshape(-1, WORDS)


def _frames(count: int) -> Iterator[slice]:
    """`count` pages of a batch in parts of at most a frame."""
    return (slice(at, min(at + FRAME_PAGES, count)) for at in range(0, count, FRAME_PAGES))


def batches(of: Ranges) -> Iterator[Ranges]:
    """Cut into parts of at most BATCH_BYTES, in order; each has at most BATCH_BYTES / PAGE ranges. A long range is cut at
    multiples of BATCH_BYTES: what arrives then fills whole huge pages (memory_store.py).
    """
    ends = np.cumsum(of[:, 1] - of[:, 0])
    starts = ends - (of[:, 1] - of[:, 0])
    total = int(ends[-1]) if len(ends) else 0
    low = 0
    while low < total:
        high = min(low + BATCH_BYTES, total)
        first = int(
            np.searchsorted(ends, np.uint64(low), "right")
        )  # of another type the whole array would be converted
        last = int(np.searchsorted(starts, np.uint64(high), "left"))
        part = of[first:last].copy()
        part[0, 0] += np.uint64(low - int(starts[first]))
        beyond = int(ends[last - 1]) - high  # of the last range
        end = int(part[-1, 1]) - beyond
        if beyond and (over := end % BATCH_BYTES) < end - int(part[-1, 0]):
            end, high = end - over, high - over
        part[-1, 1] = end
        yield part
        low = high


def page_addresses(of: Ranges) -> Addresses:
    """Of every page of `of`."""
    if len(of) == 1:
        return np.arange(int(of[0, 0]), int(of[0, 1]), PAGE, dtype=np.uint64)
    counts = ((of[:, 1] - of[:, 0]) // PAGE).astype(np.int64)
    before = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum()), dtype=np.uint64) - np.repeat(before, counts).astype(np.uint64)
    addresses: Addresses = np.repeat(of[:, 0], counts) + within * np.uint64(PAGE)
    return addresses


def to_ranges(pages: Addresses) -> Ranges:
    """The ranges that `pages`, ascending and each once, make up."""
    if not len(pages):
        return NOTHING
    if int(pages[-1]) - int(pages[0]) == (len(pages) - 1) * PAGE:
        return np.array([[pages[0], pages[-1] + np.uint64(PAGE)]], np.uint64)
    breaks = np.flatnonzero(np.diff(pages) != PAGE)
    first = np.concatenate(([0], breaks + 1))
    last = np.concatenate((breaks, [len(pages) - 1]))
    return np.stack((pages[first], pages[last] + np.uint64(PAGE)), axis=1)


def _joined(parts: list[Ranges]) -> Ranges:
    return ranges(np.concatenate(parts)) if parts else NOTHING


def _read_range(memory: int, into: memoryview, address: int, *, exact: bool) -> int:
    """Bytes read, whole pages."""
    done = 0
    while done < len(into):
        try:
            got = os.preadv(memory, [into[done:]], address + done)
        except OSError:
            if exact:
                raise
            break
        if got == 0:
            if exact:
                raise OSError(errno.EIO, f"memory at {address + done:#x} cannot be read")
            break
        done += got
    return done - done % PAGE


def tasks_by_inner_pid(pids: Iterable[int]) -> dict[int, int]:
    """{pid inside the container: pid on this host} of host pids; those that have gone are left out."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            found[process.inner_pid(pid)] = pid
    return found

"""Fill the memory of a restored process tree while it already runs: the other end of CRIU's `--lazy-pages`.

    python -I -S filler.py PACKAGE_ROOT WORK_DIR MEMORY_DIR

CRIU connects to WORK_DIR/lazy-pages.socket and sends, for each task, its pid (int32), then one byte with the task's userfaultfd;
a negative pid is a zombie; at the end of the restore it sends 0x52535446 (criu/uffd.c). MEMORY_DIR/PID.mem is a sparse file in which the
page of address A lies at offset A, MEMORY_DIR/PID.ranges lists what is lazy: little-endian u64 pairs start, end.
A hole in the file is left a hole in the process: what reads there gets a zero page, as in memory that was never written.
CRIU's own daemon needs the pages in the order of its page map, which is known only once the tasks are frozen; ours takes pages that
arrived at any time before. Pages that are still on the source (`--mode postcopy`) are listed in PID.later; the receiver asks for them
and says when they are here (later.py).

Faults are served first, then the rest is filled from low to high addresses. Fork, mremap, munmap and MADV_DONTNEED of the
process arrive as events on the same descriptor; the kernel refuses copies (EAGAIN) until they have been read. Exit status 0: all is filled.
Standard library only, single thread.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from agent.criu import marks
from agent.criu.later import SOCKET, Later, read_ranges
from agent.criu.spaces import PAGE, Missing, Space
from agent.linux import process

# linux/userfaultfd.h
UFFDIO_UNREGISTER = 0x8010AA01
UFFDIO_WAKE = 0x8010AA02
UFFDIO_COPY = 0xC028AA03
UFFDIO_ZEROPAGE = 0xC020AA04
UFFDIO_WRITEPROTECT = 0xC018AA06
WRITEPROTECT_DONTWAKE = 2  # without _MODE_WP: lift the protection that none of ours has
EVENT_PAGEFAULT, EVENT_FORK, EVENT_REMAP, EVENT_REMOVE, EVENT_UNMAP = 0x12, 0x13, 0x14, 0x15, 0x16
MESSAGE_BYTES = 32

RESTORE_FINISHED = 0x52535446
FAULT_WINDOW = 64 * 1024  # what one fault brings along: neighbours are likely next
FILL_CHUNK = 1024 * 1024
LOOK_MS = 1000  # how often, while pages are waited for, it is asked whether anybody is left who could want them


class Memory:
    """One process's memory file, read into a buffer that stays in memory: the kernel copies from it without a fault a page."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size
        self._buffer = mmap.mmap(-1, FILL_CHUNK)
        self._view = memoryview(self._buffer)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))

    def data(self, piece: Missing) -> Missing | None:
        """The first part of `piece` that has contents; None if it has none."""
        if piece.offset >= self._size:
            self._size = os.fstat(self._fd).st_size  # it grows while pages still come
        if piece.offset >= self._size:
            return None
        try:
            first = os.lseek(self._fd, piece.offset, os.SEEK_DATA) + piece.shift
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return None
            raise
        if first >= piece.end:
            return None
        start = max(piece.start, first - first % PAGE)
        end = os.lseek(self._fd, start - piece.shift, os.SEEK_HOLE) + piece.shift
        return Missing(start, min(piece.end, end + -end % PAGE), piece.shift)

    def load(self, piece: Missing) -> tuple[int, int]:
        """(address in our memory, bytes) of the beginning of `piece`, which has contents."""
        length = min(piece.end - piece.start, FILL_CHUNK)
        offset, done = piece.offset, 0
        while done < length:
            got = os.preadv(self._fd, [self._view[done:length]], offset + done)
            if not got:
                raise OSError(errno.EIO, f"the memory file ends at {offset + done:#x}, before its size")
            done += got
        return self._address, length


class Task:
    """One address space: its userfaultfd, its memory file, what is missing and here, what is missing and still on the source.

    `ask`: told the offset in the memory file of a page that somebody waits for.
    """

    def __init__(
        self,
        uffd: int,
        memory: Memory,
        space: Space,
        away: Space | None = None,
        ask: Callable[[int], None] | None = None,
    ) -> None:
        self.uffd, self.memory, self.space = uffd, memory, space
        self._away, self._ask = away or Space([]), ask
        self._waiting: set[int] = set()  # addresses of faults on pages that are away
        self.gone = False

    @property
    def complete(self) -> bool:
        return not self.space and not self._away

    def arrived(self, start: int, end: int) -> None:
        """Bytes [start, end) of the memory file are here now: who waits for them goes on, the others follow."""
        pieces = self._away.stored_in(start, end)
        for piece in pieces:
            self._away.drop(piece.start, piece.end)
        self.space.add(pieces)
        for address in [a for a in self._waiting if any(p.start <= a < p.end for p in pieces)]:
            self._fault(address)

    def ask_again(self) -> None:
        """Whoever was asked is gone: the next one is told what is waited for."""
        for address in list(self._waiting):
            self._fault(address)

    def events(self) -> list[Task]:
        """Read and act on what has arrived; returns tasks that were forked."""
        children: list[Task] = []
        while True:
            try:
                message = os.read(self.uffd, MESSAGE_BYTES)
            except BlockingIOError:
                return children
            if len(message) < MESSAGE_BYTES:
                self.gone = True
                return children
            event = message[0]
            first, second, third = struct.unpack_from("<QQQ", message, 8)
            if event == EVENT_PAGEFAULT:
                self._fault(second - second % PAGE)
            elif event == EVENT_FORK:
                uffd = first & 0xFFFFFFFF
                children.append(Task(uffd, self.memory, self.space.copy(), self._away.copy(), self._ask))
            elif event == EVENT_REMAP:
                self.space.move(first, second, third)
                self._away.move(first, second, third)
                self._let_go(first, first + third)
            elif event in (EVENT_REMOVE, EVENT_UNMAP):
                self.space.drop(first, second)  # a later fault in it gets a zero page, as the process expects
                self._away.drop(first, second)
                self._let_go(first, second)

    def look(self) -> None:
        """Is the address space still there? Its end is no event on the descriptor, and pages that are away may never come.

        Any operation says ESRCH then. This one does nothing: it lifts a write protection in the first page that a process could map,
        of which nothing is registered with us (ENOENT).
        """
        lowest = 64 * 1024  # at or above every vm.mmap_min_addr in use; below it the kernel says EINVAL before it looks
        _, code = self._ioctl(
            UFFDIO_WRITEPROTECT, bytearray(struct.pack("<QQQ", lowest, PAGE, WRITEPROTECT_DONTWAKE)), None
        )
        self.gone = self.gone or code == errno.ESRCH

    def _let_go(self, start: int, end: int) -> None:
        """Nobody brings what was waited for there: who waits faults again, and finds what is there now."""
        for address in [a for a in self._waiting if start <= a < end]:
            self._waiting.discard(address)
            self._wake(Missing(address, address + PAGE))

    def _fault(self, address: int) -> None:
        if (far := self._away.around(address, PAGE)) is not None and self._ask:
            self._waiting.add(address)
            self._ask(far.offset)
            return
        self._waiting.discard(address)
        page = self.space.around(address, PAGE)
        if page is None or self.memory.data(page) is None:
            self.space.drop(address, address + PAGE)
            self._zero(Missing(address, address + PAGE))
            return
        piece = self.space.around(address, FAULT_WINDOW)
        assert piece is not None
        self.fill(piece)
        if self.space.around(address, PAGE) is None:  # by us, or it was there already: nobody waits for nothing
            self._wake(Missing(address, address + PAGE))

    def fill(self, piece: Missing) -> bool:
        """Copy `piece` into the process, as far as the kernel lets us; False when it says: read your events first.

        One copy must stay within one mapping (else ENOENT), and `piece` may reach over several that touch: a thread's stack and what lies
        above it. So what is refused is tried again by halves, and only a single page that is refused is one that is not there.
        """
        while piece.start < piece.end and not self.gone:
            part = self.memory.data(piece)
            self.space.drop(piece.start, part.start if part else piece.end)
            if part is None:
                return True
            if not self._copy(part):
                return False
            piece = Missing(part.end, piece.end, piece.shift)
        return True

    def _copy(self, piece: Missing) -> bool:
        """fill() of a part that has contents."""
        most = piece.end - piece.start
        while piece.start < piece.end and not self.gone:
            source, length = self.memory.load(Missing(piece.start, min(piece.end, piece.start + most), piece.shift))
            request = bytearray(struct.pack("<QQQQq", piece.start, source, length, 0, 0))
            done, code = self._ioctl(UFFDIO_COPY, request, 32)
            if code == errno.EEXIST:
                self._wake(Missing(piece.start, piece.start + PAGE))
                done = PAGE
            elif code == errno.ENOENT and length > PAGE:
                most = max(length // PAGE // 2, 1) * PAGE
                continue
            elif code == errno.ENOENT:
                done = PAGE  # unmapped: its event is on the way or was read already
            elif code == errno.EAGAIN and done <= 0:
                return False
            elif code == errno.ESRCH:
                self.gone = True
                return True
            elif code not in (0, errno.EAGAIN):
                raise OSError(
                    code,
                    f"userfaultfd copy of {piece.end - piece.start} bytes to {piece.start:#x}: {os.strerror(code)}",
                )
            self.space.drop(piece.start, piece.start + done)
            piece = Missing(piece.start + done, piece.end, piece.shift)
            most = piece.end - piece.start
        return True

    def _zero(self, piece: Missing) -> None:
        request = bytearray(struct.pack("<QQQq", piece.start, piece.end - piece.start, 0, 0))
        _, code = self._ioctl(UFFDIO_ZEROPAGE, request, 24)
        if code in (errno.EEXIST, errno.EAGAIN):
            self._wake(piece)  # EAGAIN: the waiter faults again after the event has been read
        elif code == errno.ESRCH:
            self.gone = True
        elif code not in (0, errno.ENOENT):
            raise OSError(code, f"userfaultfd zero page at {piece.start:#x}: {os.strerror(code)}")

    def _wake(self, piece: Missing) -> None:
        self._ioctl(UFFDIO_WAKE, bytearray(struct.pack("<QQ", piece.start, piece.end - piece.start)), None)

    def _ioctl(self, request: int, argument: bytearray, result_at: int | None) -> tuple[int, int]:
        """(bytes done, errno). The kernel reports partial work in the argument and EAGAIN at once."""
        code = 0
        try:
            fcntl.ioctl(self.uffd, request, argument)
        except OSError as exc:
            code = exc.errno or errno.EIO
        done = 0 if result_at is None else struct.unpack_from("<q", argument, result_at)[0]
        return max(done, 0), code

    def close(self) -> None:
        os.close(self.uffd)


class Filler:
    """All tasks of one restore. `criu`: first the socket on which CRIU is waited for, then the connection."""

    def __init__(self, criu: socket.socket, memory_dir: Path, later: Later) -> None:
        self._criu, self._memory_dir = criu, memory_dir
        self._connected = False
        self._tasks: dict[int, Task] = {}
        self._files: dict[int, Memory] = {}  # by pid inside the container
        self._poll = select.poll()
        self._poll.register(criu.fileno(), select.POLLIN)
        self._later = later
        self._poll.register(later.fileno(), select.POLLIN)
        self._finished = False

    def run(self) -> int:
        while not self._finished or self._tasks:
            filling = self._finished and any(task.space for task in self._tasks.values())
            ready = self._poll.poll(0 if filling else LOOK_MS if self._finished else None)
            for fd, _ in ready:
                if fd == self._criu.fileno() and not self._connected:
                    self._accept()
                elif fd == self._criu.fileno():
                    if not self._receive():
                        return 1
                elif fd in self._tasks:
                    for child in self._tasks[fd].events():
                        self._add(child)
                else:
                    self._hear(fd)
            if not ready and filling:
                self._fill_some()
            elif not ready:
                for task in self._tasks.values():
                    task.look()
            for task in [t for t in self._tasks.values() if t.gone or (self._finished and t.complete)]:
                self._remove(task)
        return 0

    def _accept(self) -> None:
        """CRIU has come: from here tasks may run that lack memory, and only they, or CRIU, end this process."""
        connection, _ = self._criu.accept()
        process.set_parent_death_signal(0)
        self._poll.unregister(self._criu.fileno())
        self._criu.close()
        self._criu, self._connected = connection, True
        self._poll.register(connection.fileno(), select.POLLIN)

    def _receive(self) -> bool:
        """One message of CRIU; False when it went away before the restore was finished."""
        raw = self._criu.recv(4, socket.MSG_WAITALL)
        if len(raw) < 4:
            return False
        (pid,) = struct.unpack("<i", raw)
        if pid == RESTORE_FINISHED:
            self._finished = True
            self._poll.unregister(self._criu.fileno())
            self._criu.close()
        elif pid > 0:
            _, ancillary, _, _ = self._criu.recvmsg(1, socket.CMSG_SPACE(4))
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            here, away = Space(read_ranges(self._memory_dir / f"{pid}.ranges")), Space([])
            for far in self._later.missing(pid):
                away.add(here.drop(far.start, far.end))
            memory = self._files[pid] = Memory(self._memory_dir / f"{pid}.mem")
            self._add(Task(fds[0], memory, here, away, functools.partial(self._later.ask, pid)))
        return True

    def _hear(self, fd: int) -> None:
        """Of the receiver: it has come, it brings pages, it has gone."""
        if fd == self._later.fileno():
            connection = self._later.accept()
            self._poll.register(connection, select.POLLIN)
            for task in self._tasks.values():
                task.ask_again()
            return
        news = self._later.read(fd)
        if news is None:
            self._poll.unregister(fd)
            self._later.hang_up(fd)
            return
        for pid, start, end in news:
            for task in [t for t in self._tasks.values() if t.memory is self._files.get(pid)]:
                task.arrived(start, end)

    def _fill_some(self) -> None:
        task = next(task for task in self._tasks.values() if task.space)
        piece = task.space.first(FILL_CHUNK)
        if piece is not None:
            task.fill(piece)

    def _add(self, task: Task) -> None:
        os.set_blocking(task.uffd, False)
        self._tasks[task.uffd] = task
        self._poll.register(task.uffd, select.POLLIN)

    def _remove(self, task: Task) -> None:
        self._poll.unregister(task.uffd)
        del self._tasks[task.uffd]
        task.close()  # unregisters: from here the kernel serves its faults as for any process


def main() -> int:
    work_dir, memory_dir = Path(sys.argv[2]), Path(sys.argv[3])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(work_dir / "lazy-pages.socket"))
    listener.listen(1)
    with Later(work_dir / SOCKET, memory_dir) as later:
        process.set_parent_death_signal(signal.SIGKILL)  # a killed monitor restores nothing any more
        print("listening", flush=True)  # noqa: T201  # the monitor waits for this line before it starts the restore
        code = Filler(listener, memory_dir, later).run()
    if code == 0:
        with contextlib.suppress(OSError):  # it is read only where the monitor has died, and was not told by our status
            (work_dir / marks.FILLED).touch()
    return code


if __name__ == "__main__":
    sys.exit(main())

"""`python restless.py SEED PLACES [DEPTH [STEPS]]`: a program whose memory does all that memory can do, at random, until it is killed.

Maps, unmaps, writes, punches holes, moves, grows, shrinks, protects and advises areas, forks children that do the same and end, becomes
another program, writes from a second thread, reads files past the page cache, and watches an area with a userfaultfd of its own. What
trackers.py drives; standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time

PAGE = 4096
HUGE = 2 << 20
MOST_PAGES = 1500  # of one area: some are large enough for a huge page
FORKS = 3
MOST_STEPS, LIFE_S = 1_000_000, 60
NR_USERFAULTFD = 323

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = _libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
MAP_FIXED, MAP_FIXED_NOREPLACE = 0x10, 0x100000
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
DONTNEED, FREE, COLD, PAGEOUT, HUGEPAGE, NOHUGEPAGE = 4, 8, 20, 21, 14, 15  # MADV_*, linux/mman.h
WIPEONFORK, KEEPONFORK = 18, 19
FAILED = ctypes.c_void_p(-1).value


class Restless:
    """`places`: the areas lie within a few addresses, so that a new one often comes where another has been."""

    def __init__(self, seed: int, places: int, depth: int, steps: int) -> None:
        self.random = random.Random(seed)
        self.places, self.depth, self.left = places, depth, steps
        self.areas: dict[int, int] = {}  # address -> pages, readable and writable
        self.children: list[int] = []
        self.uffd = -1
        self.base = 0x7E00_0000_0000 - (seed % 64) * (1 << 30)

    def run(self) -> None:
        while self.left:
            self.left -= 1
            self.step()
        os._exit(0)

    def step(self) -> None:
        act = self.random.choices(
            (self.write, self.map, self.unmap, self.punch, self.move, self.resize, self.protect, self.advise, self.fork,
             self.become, self.direct, self.own_userfault, self.rest),
            (60, 12, 6, 8, 6, 5, 5, 5, 1, 0.1, 2, 0.02, 25),
        )[0]  # fmt: skip
        act()

    def rest(self) -> None:
        time.sleep(self.random.random() / 200)

    def map(self) -> None:
        if sum(self.areas.values()) > 12_000:
            return self.unmap()
        at = self.base + self.random.randrange(self.places) * 4 * HUGE + self.random.choice((0, 0, PAGE, HUGE))
        pages = self.random.choice((1, 3, self.random.randrange(1, MOST_PAGES)))
        fixed = MAP_FIXED if self.random.random() < 0.3 else MAP_FIXED_NOREPLACE
        got = _libc.mmap(at, pages * PAGE, READ_WRITE, ANONYMOUS | fixed, -1, 0)
        if got not in (FAILED, None):
            self.cut(got, pages)
            self.areas[got] = pages
        return None

    def write(self) -> None:
        if not self.areas:
            return
        at, pages = self.random.choice(tuple(self.areas.items()))
        first = self.random.randrange(pages)
        for page in range(first, min(pages, first + self.random.choice((1, 1, 2, 40, 600)))):
            kind = self.random.random()
            content = (
                bytes(16) if kind < 0.2 else b"the same 16 byte" if kind < 0.4 else self.random.randbytes(16)
            )  # zero pages, pages that are written and equal, and others
            ctypes.memmove(at + page * PAGE + self.random.randrange(PAGE - 16), content, 16)

    def unmap(self) -> None:
        if not self.areas:
            return
        at, pages = self.random.choice(tuple(self.areas.items()))
        first = self.random.randrange(pages)
        count = self.random.randrange(1, pages - first + 1)
        _libc.munmap(at + first * PAGE, count * PAGE)
        self.cut(at + first * PAGE, count)

    def punch(self) -> None:
        where = self.some_part()
        if where:
            _libc.madvise(*where, self.random.choice((DONTNEED, DONTNEED, FREE)))
            if self.random.random() < 0.5:  # a read brings the zero page, the huge one too
                ctypes.string_at(where[0], 1)

    def move(self) -> None:
        if not self.areas:
            return
        at, pages = self.random.choice(tuple(self.areas.items()))
        to = self.base + self.random.randrange(self.places) * 4 * HUGE
        if to < at + pages * PAGE and at < to + pages * PAGE:
            return
        flags = MREMAP_MAYMOVE | MREMAP_FIXED | (MREMAP_DONTUNMAP if self.random.random() < 0.3 else 0)
        got = _libc.mremap(at, pages * PAGE, pages * PAGE, flags, to)
        if got in (FAILED, None):
            return
        self.cut(to, pages)
        if not flags & MREMAP_DONTUNMAP:
            self.areas.pop(at)
        self.areas[to] = pages

    def resize(self) -> None:
        if not self.areas:
            return
        at, pages = self.random.choice(tuple(self.areas.items()))
        wanted = self.random.randrange(1, MOST_PAGES)
        got = _libc.mremap(at, pages * PAGE, wanted * PAGE, 0, None)
        if got not in (FAILED, None):
            self.areas[at] = wanted

    def protect(self) -> None:
        where = self.some_part()
        if where:
            _libc.mprotect(*where, self.random.choice((0, mmap.PROT_READ)))
            self.rest()
            _libc.mprotect(*where, READ_WRITE)

    def advise(self) -> None:
        where = self.some_part()
        if where:
            _libc.madvise(
                *where, self.random.choice((HUGEPAGE, HUGEPAGE, NOHUGEPAGE, COLD, PAGEOUT, WIPEONFORK, KEEPONFORK))
            )

    def fork(self) -> None:
        self.children = [pid for pid in self.children if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if len(self.children) >= FORKS or self.depth >= 2:
            return
        seed = self.random.getrandbits(32)
        pid = os.fork()
        if pid:
            self.children.append(pid)
            return
        end_with_parent()
        self.random.seed(seed)
        self.children, self.depth, self.left = [], self.depth + 1, self.random.randrange(50, 3000)
        self.run()

    def become(self) -> None:
        """Another program, with the same pid, that lives no longer than this one would have."""
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        words = (self.random.getrandbits(32), self.places, self.depth, self.left)
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, *map(str, words)])

    def direct(self) -> None:
        """read(2) past the page cache: the kernel writes to the pages, not the program."""
        where = self.some_part()
        if not where:
            return
        with contextlib.suppress(OSError):
            file = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            try:
                area = (ctypes.c_char * PAGE).from_address(where[0])
                os.preadv(file, [area], 0)
            finally:
                os.close(file)

    def own_userfault(self) -> None:
        """As a garbage collector may: an area of its own under asynchronous write protection. The next time it lets it go."""
        if self.uffd >= 0:
            os.close(self.uffd)
            self.uffd = -1
            return
        uffd = _libc.syscall(NR_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | 1)
        if uffd < 0:
            return
        self.uffd = uffd
        with contextlib.suppress(OSError):
            fcntl.ioctl(uffd, 0xC018AA3F, bytearray(struct.pack("<QQQ", 0xAA, 1 << 13 | 1 << 15, 0)))
            at, pages = self.random.choice(tuple(self.areas.items()))
            fcntl.ioctl(uffd, 0xC020AA00, bytearray(struct.pack("<QQQQ", at, pages * PAGE, 2, 0)))

    def some_part(self) -> tuple[int, int] | None:
        if not self.areas:
            return None
        at, pages = self.random.choice(tuple(self.areas.items()))
        if self.random.random() < 0.3:
            return at, pages * PAGE
        first = self.random.randrange(pages)
        return at + first * PAGE, self.random.randrange(1, pages - first + 1) * PAGE

    def cut(self, at: int, count: int) -> None:
        """Forget what lies in the pages from `at` on: it is gone, or another area now."""
        end = at + count * PAGE
        for start, pages in tuple(self.areas.items()):
            stop = start + pages * PAGE
            if start < end and at < stop:
                del self.areas[start]
                if start < at:
                    self.areas[start] = (at - start) // PAGE
                if stop > end:
                    self.areas[end] = (stop - end) // PAGE


def end_with_parent() -> None:
    """And whatever becomes of everybody, it ends after a while: an alarm outlives an execve, a fork clears it."""
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.alarm(LIFE_S)


def main() -> None:
    seed, places, depth, steps = (int(word) for word in (*sys.argv[1:], "0", str(MOST_STEPS))[:4])
    end_with_parent()
    heap: list[bytearray] = [bytearray(PAGE) for _ in range(64)]

    def second_thread() -> None:
        choose = random.Random(seed + 1)
        while True:
            heap[choose.randrange(64)][choose.randrange(PAGE)] = choose.randrange(256)
            time.sleep(0.0005)

    threading.Thread(target=second_thread, daemon=True).start()
    Restless(seed, places, depth, steps).run()


if __name__ == "__main__":
    main()

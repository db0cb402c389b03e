"""Changes files at random for ever, in every way that a program can: `restless_files.py DIRECTORY SEED [overlay]`.

`overlay`: DIRECTORY holds lower, upper, work, merged, and the program works in an overlay of them that nobody else sees, as a container
does. It says how many changes it has made, each time that a line comes on stdin. SIGSTOP holds it still.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import select
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

PAGE = 4096
LIBC = ctypes.CDLL(None, use_errno=True)
IO_SETUP, IO_GETEVENTS, IO_SUBMIT = 206, 208, 209  # x86_64
NAMES = ["a", "b", "c", "d", "e f", "\N{LATIN SMALL LETTER E WITH ACUTE}", "g\nh"]


class Program:
    """Paths are relative to the working directory. What is mapped or open stays so for a while."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.mappings: list[mmap.mmap] = []
        self.open: list[int] = []
        self.counts: dict[str, int] = {}
        self.context = ctypes.c_ulong(0)
        self.changes: list[Callable[[], None]] = [
            self.create, self.create, self.write, self.write, self.append, self.truncate, self.punch, self.rename, self.rename, self.link,
            self.unlink, self.mkdir, self.mkdir, self.rmtree, self.chmod, self.chown, self.set_xattr, self.symlink, self.times, self.map,
            self.map, self.store, self.store, self.store, self.unmap, self.seal, self.direct, self.hold, self.write_held, self.release,
            self.replace, self.splice, self.asynchronous,
        ]  # fmt: skip

    def run(self) -> None:
        while True:
            change = self.random.choice(self.changes)
            try:
                change()
                self.counts[change.__name__] = self.counts.get(change.__name__, 0) + 1
            except (OSError, IndexError, ValueError):
                pass  # nothing to do it to
            if select.select([0], [], [], self.random.choice((0, 0, 0, 0.001)))[0]:
                if not sys.stdin.readline():
                    return
                print(sum(self.counts.values()), *sorted(self.counts), flush=True)

    # ---------------------------------------------------------------- where

    def path(self) -> Path:
        """Any that is there."""
        return self.random.choice([Path(top) / name for top, dirs, files in os.walk(".") for name in dirs + files])

    def file(self) -> Path:
        found = [Path(top) / name for top, _, files in os.walk(".") for name in files]
        return self.random.choice([path for path in found if path.is_file() and not path.is_symlink()])

    def new(self) -> Path:
        return Path(self.random.choice([top for top, _, _ in os.walk(".")])) / self.random.choice(NAMES)

    def data(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 100, PAGE, 70_000, 200_000)))

    # ---------------------------------------------------------------- changes

    def create(self) -> None:
        with self.new().open("xb") as file:
            file.write(self.data())

    def write(self) -> None:
        with self.file().open("r+b") as file:
            file.seek(self.random.randrange(300_000))
            file.write(self.data())

    def append(self) -> None:
        with self.file().open("ab") as file:
            file.write(self.data())

    def truncate(self) -> None:
        os.truncate(self.file(), self.random.randrange(200_000))

    def punch(self) -> None:
        fd = os.open(self.file(), os.O_RDWR)
        try:
            start, length = self.random.randrange(100_000), self.random.randrange(1, 200_000)
            LIBC.fallocate(fd, 3, ctypes.c_int64(start), ctypes.c_int64(length))
        finally:
            os.close(fd)

    def rename(self) -> None:
        self.path().rename(self.new())

    def replace(self) -> None:
        path = self.file()
        other = path.with_name("replacement")
        other.write_bytes(self.data())
        other.replace(path)

    def link(self) -> None:
        os.link(self.file(), self.new())

    def unlink(self) -> None:
        self.file().unlink()

    def mkdir(self) -> None:
        self.new().mkdir()

    def rmtree(self) -> None:
        path = self.path()
        if path.is_dir() and len(list(Path().rglob("*"))) > 60:
            shutil.rmtree(path)

    def chmod(self) -> None:
        self.path().chmod(self.random.choice((0o700, 0o755, 0o640, 0o600)))

    def chown(self) -> None:
        os.chown(self.path(), self.random.randrange(9), self.random.randrange(9), follow_symlinks=False)

    def set_xattr(self) -> None:
        os.setxattr(self.path(), "trusted.note", self.random.randbytes(20), follow_symlinks=False)

    def symlink(self) -> None:
        self.new().symlink_to(self.random.choice(NAMES))

    def times(self) -> None:
        os.utime(self.path(), ns=(1, self.random.randrange(1 << 60)), follow_symlinks=False)

    def map(self) -> None:
        """Its descriptor is closed at once: the mapping holds the file."""
        with self.file().open("r+b") as file:
            if os.fstat(file.fileno()).st_size >= PAGE:
                self.mappings.append(mmap.mmap(file.fileno(), PAGE))

    def store(self) -> None:
        """Without a call. A file that has become shorter would kill us: then it is only let go."""
        mapping = self.random.choice(self.mappings)
        if mapping.size() < PAGE:
            raise ValueError
        place = self.random.randrange(PAGE - 8)
        mapping[place : place + 8] = self.random.randbytes(8)

    def seal(self) -> None:
        """What was written stays; the mapping looks as if nobody could write."""
        mapping = self.random.choice(self.mappings)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        mapping[:4] = b"seal"
        LIBC.mprotect(ctypes.c_void_p(address), PAGE, 1)
        self.mappings.remove(mapping)
        self.sealed = [*getattr(self, "sealed", [])[-3:], mapping]

    def unmap(self) -> None:
        self.mappings.pop(self.random.randrange(len(self.mappings))).close()

    def direct(self) -> None:
        buffer = mmap.mmap(-1, PAGE)
        buffer[:] = self.random.randbytes(PAGE)
        fd = os.open(self.file(), os.O_RDWR | os.O_DIRECT)
        try:
            os.pwrite(fd, buffer, self.random.randrange(20) * PAGE)
        finally:
            os.close(fd)

    def hold(self) -> None:
        if len(self.open) < 8:
            self.open.append(os.open(self.file(), os.O_RDWR))

    def write_held(self) -> None:
        """Also into one that has another name by now, or none."""
        os.pwrite(self.random.choice(self.open), self.data(), self.random.randrange(100_000))

    def release(self) -> None:
        os.close(self.open.pop(self.random.randrange(len(self.open))))

    def splice(self) -> None:
        ours, theirs = os.pipe()
        try:
            os.write(theirs, b"spliced %d" % self.random.randrange(1 << 40))
            os.splice(ours, self.random.choice(self.open), 64, offset_dst=self.random.randrange(1000))
        finally:
            os.close(ours)
            os.close(theirs)

    def asynchronous(self) -> None:
        """A write by io_submit(2), into a file that stays open."""
        if not self.context.value and LIBC.syscall(IO_SETUP, 4, ctypes.byref(self.context)):
            raise OSError(ctypes.get_errno(), "io_setup")
        data = ctypes.create_string_buffer(b"asynchronous %d" % self.random.randrange(1 << 40))
        size, fd = len(data) - 1, self.random.choice(self.open)
        block = ctypes.create_string_buffer(
            struct.pack("QIIHhIQQqQII", 0, 0, 0, 1, 0, fd, ctypes.addressof(data), size, 5, 0, 0, 0)
        )
        pointer = ctypes.c_void_p(ctypes.addressof(block))
        if LIBC.syscall(IO_SUBMIT, self.context, 1, ctypes.byref(pointer)) != 1:
            raise OSError(ctypes.get_errno(), "io_submit")
        LIBC.syscall(IO_GETEVENTS, self.context, 1, 1, ctypes.create_string_buffer(32), None)


def main() -> None:
    os.chdir(sys.argv[1])
    if sys.argv[3:] == ["overlay"]:
        assert LIBC.unshare(0x20000) == 0
        assert LIBC.mount(b"none", b"/", None, 0x44000, None) == 0
        options = b"lowerdir=lower,upperdir=upper,workdir=work,xino=off"
        assert LIBC.mount(b"overlay", b"merged", b"overlay", 0, options) == 0
        os.chdir("merged")
        assert (
            LIBC.umount2(b".", 2) == 0
        )  # our root is not its root, and the names of what we map begin there all the same
    print("ready", flush=True)
    Program(int(sys.argv[2])).run()


if __name__ == "__main__":
    main()

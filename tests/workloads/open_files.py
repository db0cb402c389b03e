"""open_files.py [STATUS]: holds one descriptor of each common kind, with something in it, and checks them over and
over.

Proves: file positions, a deleted file, append mode, file locks, a pipe and a unix socket pair with unread bytes in
them, memfd, epoll, a shared mapping of a file, a directory, signals that are blocked, the working directory, umask
and nice value.
"""
# ruff: noqa: PTH103, PTH105, PTH108, PTH109, PTH116, PTH208, SIM115
# One small program with descriptors that stay open: os, not pathlib.

import fcntl
import json
import mmap
import os
import select
import signal
import socket
import sys
import time

PAYLOAD = bytes(range(256)) * 16  # 4 KiB


class Held:
    """Everything that is open. `check` returns what is wrong with it now."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.chdir(folder)
        os.umask(0o027)
        os.nice(3)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        self.plain = open("plain", "wb+", buffering=0)
        self.plain.write(PAYLOAD)
        self.plain.seek(1000)
        self.deleted = open("deleted", "wb+", buffering=0)
        self.deleted.write(PAYLOAD)
        os.unlink("deleted")
        self.appended = os.open("appended", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        self.appends = 0
        self.locked = open("locked", "w")
        fcntl.flock(self.locked, fcntl.LOCK_EX)
        self.pipe_read, self.pipe_write = os.pipe()
        os.write(self.pipe_write, b"in the pipe")
        self.left, self.right = socket.socketpair()
        self.left.sendall(b"in the socket")
        self.memory = os.memfd_create("held")
        os.write(self.memory, PAYLOAD)
        self.directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self.shared_file = open("shared", "wb+", buffering=0)
        self.shared_file.truncate(len(PAYLOAD))
        self.shared = mmap.mmap(self.shared_file.fileno(), len(PAYLOAD))
        self.poll = select.epoll()
        self.poll.register(self.pipe_read, select.EPOLLIN)

    def check(self, count: int) -> list:
        wrong = []

        def expect(what: str, found: object, wanted: object) -> None:
            if found != wanted:
                wrong.append(f"round {count}: {what} is {found!r:.80}, not {wanted!r:.80}")

        expect("position of the plain file", self.plain.tell(), 1000)
        expect("the plain file", os.pread(self.plain.fileno(), 8192, 0), PAYLOAD)
        expect("the deleted file", os.pread(self.deleted.fileno(), 8192, 0), PAYLOAD)
        expect("links of the deleted file", os.fstat(self.deleted.fileno()).st_nlink, 0)
        os.write(self.appended, b"a")
        self.appends += 1
        expect("length of the appended file", os.stat("appended").st_size, self.appends)
        with open("locked") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                wrong.append(f"round {count}: the lock is gone")
            except BlockingIOError:
                pass
        expect("epoll", self.poll.poll(0), [(self.pipe_read, select.EPOLLIN)])
        expect("the pipe", os.read(self.pipe_read, 100), b"in the pipe")
        os.write(self.pipe_write, b"in the pipe")
        expect("the socket pair", self.right.recv(100), b"in the socket")
        self.left.sendall(b"in the socket")
        expect("the memfd", os.pread(self.memory, 8192, 0), PAYLOAD)
        expect("the directory", sorted(os.listdir(self.directory))[0], "appended")
        self.shared[:8] = count.to_bytes(8, "big")
        expect("the shared mapping", os.pread(self.shared_file.fileno(), 8, 0), count.to_bytes(8, "big"))
        expect("blocked signals", signal.pthread_sigmask(signal.SIG_BLOCK, ()), {signal.SIGUSR2})
        expect("the working directory", os.getcwd(), self.folder)
        mask = os.umask(0o027)
        expect("the umask", mask, 0o027)
        expect("the nice value", os.nice(0), 3)
        return wrong


def main() -> None:
    status = sys.argv[1] if len(sys.argv) > 1 else "/srv/open_files.json"
    folder = os.path.realpath(status) + ".d"
    os.makedirs(folder, exist_ok=True)
    token = os.urandom(16).hex()
    held = Held(folder)
    count, problems = 0, []
    while True:
        count += 1
        problems += held.check(count)
        with open(status + ".new", "w") as file:
            json.dump({"token": token, "count": count, "problems": problems[:20]}, file)
        os.replace(status + ".new", status)
        time.sleep(0.2)


if __name__ == "__main__":
    main()

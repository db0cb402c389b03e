"""The program in a container of `bench.downtime` that is no Redis: many processes, threads, descriptors or files, or a sparse one.

    python3 -c "$(cat shapes.py)" tree|threads|fds|files|sparse NUMBER

When all of it is there it listens on port 6379 and answers INCR as Redis does, so that the same client can ask it, and CHECK, which
looks at every part of it: ":0", or "-" and what is wrong. Standard library only.
"""

from __future__ import annotations

import os
import random
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PORT = 6379
SRV = Path("/srv")
BLOCK, BLOCKS = 1 << 20, 64
Check = Callable[[], str]  # "" = all is well


def tree(count: int) -> Check:
    """`count` processes in three levels; each answers a byte with a byte."""
    pipes = [(*os.pipe(), *os.pipe()) for _ in range(count - 1)]
    children = max(1, round((count - 1) ** 0.5))

    def serve(number: int, below: range) -> None:
        for each in below:
            if os.fork() == 0:
                serve(each, range(0))
        ask, _, _, answer = pipes[number]
        for other in (end for pipe in pipes for end in pipe if end not in (ask, answer)):
            os.close(other)
        while byte := os.read(ask, 1):
            os.write(answer, byte)
        os._exit(0)

    for first in range(0, count - 1, children):
        if os.fork() == 0:
            serve(first, range(first + 1, min(first + children, count - 1)))

    def check() -> str:
        for _, ask, answer, _ in pipes:
            os.write(ask, b"x")
            if not select.select([answer], [], [], 10)[0] or os.read(answer, 1) != b"x":
                return "a process does not answer"
        return ""

    return check


def threads(count: int) -> Check:
    """`count` threads, this one too; each counts when it is asked."""
    threading.stack_size(128 << 10)
    counts = [0] * (count - 1)
    asked = [threading.Semaphore(0) for _ in counts]
    done = threading.Semaphore(0)

    def serve(number: int) -> None:
        while asked[number].acquire():
            counts[number] += 1
            done.release()

    for number in range(len(counts)):
        threading.Thread(target=serve, args=(number,), daemon=True).start()

    def check() -> str:
        before = counts[0]
        for each in asked:
            each.release()
        answers = sum(done.acquire(timeout=10) for _ in asked)
        return "" if answers == len(asked) and set(counts) == {before + 1} else f"{answers} threads answered"

    return check


def fds(count: int) -> Check:
    """`count` descriptors: three in five of files, each at an offset of its own, the others of pipes and socket pairs."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    files = []
    for number in range(count * 3 // 5):
        path = SRV / f"file-{number // 3}"
        if number % 3 == 0:
            path.write_bytes(b"%08d" % (number // 3) * 4)
        files.append(path.open("rb", buffering=0))
        files[-1].seek(number % 3 * 8)
    pipes = [os.pipe() for _ in range(count // 10)]
    pairs = [socket.socketpair() for _ in range(count // 10)]

    def check() -> str:
        for number, file in enumerate(files):
            if file.read(8) != b"%08d" % (number // 3):
                return f"descriptor of {file.name} is elsewhere"
            file.seek(number % 3 * 8)
        for number, (read, write) in enumerate(pipes):
            os.write(write, b"%d" % number)
            if os.read(read, 20) != b"%d" % number:
                return "a pipe leads elsewhere"
        for number, (left, right) in enumerate(pairs):
            left.sendall(b"%d" % number)
            if right.recv(20) != b"%d" % number:
                return "a socket leads elsewhere"
        return ""

    return check


def files(count: int) -> Check:
    """`count` small files; one in a hundred is written anew each second."""
    for folder in range(count // 1000):
        (SRV / f"{folder}").mkdir()
        for number in range(1000):
            (SRV / f"{folder}/{number}").write_text(f"{folder}/{number} 0\n")
    lock, turn = threading.Lock(), [0]
    changing = [f"{folder}/{number}" for folder in range(count // 1000) for number in range(10)]

    def change() -> None:
        while True:
            began = time.monotonic()
            with lock:
                turn[0] += 1
                for name in changing:
                    (SRV / name).write_text(f"{name} {turn[0]}\n")
            time.sleep(max(0.1, began + 1 - time.monotonic()))

    threading.Thread(target=change, daemon=True).start()

    def check() -> str:
        with lock:
            latest = dict.fromkeys(changing, turn[0])
            for folder in range(count // 1000):
                for number in range(1000):
                    name = f"{folder}/{number}"
                    if (found := (SRV / name).read_text()) != f"{name} {latest.get(name, 0)}\n":
                        return f"{name} has {found!r} in turn {turn[0]}"
        return ""

    return check


def sparse(gigabytes: int) -> Check:
    """A file of that size with 64 MB of data, spread out."""
    size = gigabytes * 10**9

    def blocks() -> list[tuple[int, bytes]]:
        source = random.Random(1)
        return [(size // BLOCKS * number, source.randbytes(BLOCK)) for number in range(BLOCKS)]

    file = (SRV / "sparse").open("w+b", buffering=0)
    file.truncate(size)
    for offset, data in blocks():
        os.pwrite(file.fileno(), data, offset)

    def check() -> str:
        found = (SRV / "sparse").stat()
        if found.st_size != size:
            return f"its size is {found.st_size}"
        if found.st_blocks * 512 > 2 * BLOCK * BLOCKS:
            return f"it has {found.st_blocks * 512} bytes of blocks: not sparse any more"
        if any(os.pread(file.fileno(), BLOCK, offset) != data for offset, data in blocks()):
            return "a block has other bytes"
        return "bytes in a hole" if any(os.pread(file.fileno(), BLOCK, size // BLOCKS // 2)) else ""

    return check


def serve(check: Check) -> None:
    """INCR and CHECK, for as many clients as come, for ever."""
    listener = socket.create_server(("0.0.0.0", PORT), backlog=16)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    clients: dict[int, socket.socket] = {}
    rest: dict[int, bytes] = {}
    value = 0
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()], rest[client.fileno()] = client, b""
                poll.register(client, select.POLLIN)
                continue
            try:
                data = clients[number].recv(65536)
            except OSError:
                data = b""
            if not data:
                poll.unregister(number)
                clients.pop(number).close()
                continue
            rest[number] += data
            lines = rest[number].split(b"\r\n")
            while len(lines) > 1:
                words = 5 if lines[0].startswith(b"*") else 1  # an array of INCR and a key, or a word alone
                if len(lines) <= words:
                    break
                if words == 1:
                    wrong = check()
                    answer = f"-{wrong}\r\n" if wrong else ":0\r\n"
                else:
                    value += 1
                    answer = f":{value}\r\n"
                del lines[:words]
                clients[number].sendall(answer.encode())
            rest[number] = b"\r\n".join(lines)


if __name__ == "__main__":
    kind, number = sys.argv[-2], int(sys.argv[-1])
    serve({"tree": tree, "threads": threads, "fds": fds, "files": files, "sparse": sparse}[kind](number))

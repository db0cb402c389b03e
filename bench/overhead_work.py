"""What bench/overhead.py runs, on the host and in a container: one measurement a call, its figure as JSON on stdout.

    cpu | memory | disk DIRECTORY | serve PORT | round-trip ADDRESS PORT | throughput ADDRESS PORT

Both sides run it with the same Python, that of the image. Standard library only.
"""
# A program that talks to its caller.

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

BLOCK_BYTES = 4096
FILE_BYTES = 64 << 20
COPY_BYTES = 64 << 20
PIECE_BYTES = 256 << 10
MEASURE_S = 1.0
ROUND_TRIPS = 2000
ASK_ROUND_TRIP, ASK_STREAM = b"r", b"s"


def _rate(work: Callable[[], int], clock: Callable[[], float] = time.perf_counter) -> float:
    """What `work` counts, a second of `clock`."""
    begun, done = clock(), 0
    while (took := clock() - begun) < MEASURE_S:
        done += work()
    return done / took


def cpu() -> dict[str, float]:
    """Interpreted integer arithmetic, in millions of steps a second; SHA-256, in MB/s. Seconds of CPU time, here and for memory: what
    others on the machine take away is no cost of the container's.
    """
    data = bytes(1 << 20)

    def steps() -> int:
        total = 0
        for number in range(100_000):
            total = (total * 31 + number) & 0xFFFFFFFF
        return 100_000

    def digest() -> int:
        hashlib.sha256(data).digest()
        return len(data)

    return {"arithmetic": _rate(steps, time.process_time) / 1e6, "sha256": _rate(digest, time.process_time) / 1e6}


def memory() -> dict[str, float]:
    """Copies of 64 MB, far more than a cache holds, in GB/s; new pages touched for the first time, in thousands a second."""
    source, target = bytearray(COPY_BYTES), bytearray(COPY_BYTES)

    def copy() -> int:
        target[:] = source
        return COPY_BYTES

    def touch() -> int:
        with mmap.mmap(-1, 8 << 20) as fresh:
            for at in range(0, len(fresh), mmap.PAGESIZE):
                fresh[at] = 1
            return len(fresh) // mmap.PAGESIZE

    return {"copy": _rate(copy, time.process_time) / 1e9, "touch": _rate(touch, time.process_time) / 1e3}


def disk(directory: str) -> dict[str, float]:
    """4 KiB at random places of a file of 64 MiB, past the page cache (O_DIRECT), operations a second."""
    path = Path(directory, "overhead.data")
    block = mmap.mmap(-1, BLOCK_BYTES)  # aligned, as O_DIRECT wants it
    block.write(random.randbytes(BLOCK_BYTES))
    with open(path, "wb") as file:
        for _ in range(FILE_BYTES >> 20):
            file.write(random.randbytes(1 << 20))
        os.fsync(file.fileno())
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    blocks = FILE_BYTES // BLOCK_BYTES

    def read() -> int:
        os.preadv(fd, [block], random.randrange(blocks) * BLOCK_BYTES)
        return 1

    def write() -> int:
        os.pwritev(fd, [block], random.randrange(blocks) * BLOCK_BYTES)
        return 1

    try:
        return {"read": _rate(read), "write": _rate(write)}
    finally:
        os.close(fd)
        path.unlink()


def serve(port: int) -> NoReturn:
    """Until it is killed: an echo of one byte at a time, or as much as is taken."""
    with socket.create_server(("", port), backlog=16) as listening:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    piece = bytes(PIECE_BYTES)
    try:
        with connection:
            stream = connection.recv(1) == ASK_STREAM
            while stream or connection.recv(1):
                connection.sendall(piece if stream else ASK_ROUND_TRIP)
    except OSError:
        return  # the client has seen enough


def _connect(address: str, port: int, ask: bytes) -> socket.socket:
    connection = socket.create_connection((address, port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(ask)
    return connection


def round_trip(address: str, port: int) -> dict[str, float]:
    """One byte there and back, the median in microseconds."""
    times = []
    with _connect(address, port, ASK_ROUND_TRIP) as connection:
        for _ in range(ROUND_TRIPS):
            begun = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            times.append(time.perf_counter() - begun)
    return {"round trip": statistics.median(times) * 1e6}


def throughput(address: str, port: int) -> dict[str, float]:
    """From the server, in Gbit/s."""
    with _connect(address, port, ASK_STREAM) as connection:
        room = bytearray(PIECE_BYTES)
        return {"throughput": _rate(lambda: connection.recv_into(room)) * 8 / 1e9}


def main(words: list[str]) -> None:
    verb, rest = words[0], words[1:]
    if verb == "serve":
        serve(int(rest[0]))
    verbs: dict[str, Callable[[], dict[str, float]]] = {
        "cpu": cpu,
        "memory": memory,
        "disk": lambda: disk(rest[0]),
        "round-trip": lambda: round_trip(rest[0], int(rest[1])),
        "throughput": lambda: throughput(rest[0], int(rest[1])),
    }
    measured = verbs[verb]()
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1:])

"""The demo's data: `python -m migrate.lab.data fill|verify ADDRESS PORT SIZE_MB SEED` from the client namespace.

Each value is 16 KiB of random bytes that follow from the seed and the key's number, so `verify` knows all of them
without having kept any. They do not compress: what a move sends of them it really sends. Prints one JSON object.
Standard library only.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from typing import BinaryIO

VALUE_BYTES = 16 << 10
_BATCH = 64


def key_count(size_mb: int) -> int:
    return max(1, size_mb * 1_000_000 // VALUE_BYTES)


def key(number: int) -> bytes:
    return b"demo:key:%06d" % number


def value(seed: str, number: int) -> bytes:
    """The only value that key `number` may have."""
    return random.Random(f"{seed}:{number}").randbytes(VALUE_BYTES)  # noqa: S311  test data, and it must be repeatable


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _bulk(replies: BinaryIO) -> bytes | None:
    """One bulk string; None when there is no such key."""
    head = replies.readline()
    if head == b"$-1\r\n":
        return None
    if not head.startswith(b"$"):
        raise ConnectionError(f"redis answered {head!r}")
    length = int(head[1:])
    return replies.read(length + 2)[:-2]


def fill(connection: socket.socket, size_mb: int, seed: str) -> dict[str, object]:
    """Set all keys."""
    count, replies = key_count(size_mb), connection.makefile("rb")
    for first in range(0, count, _BATCH):
        batch = range(first, min(first + _BATCH, count))
        connection.sendall(b"".join(_command(b"SET", key(number), value(seed, number)) for number in batch))
        for _ in batch:
            if (reply := replies.readline()) != b"+OK\r\n":
                raise ConnectionError(f"redis answered {reply!r} to SET")
    return {"keys": count, "bytes": count * VALUE_BYTES}


def verify(connection: socket.socket, size_mb: int, seed: str) -> dict[str, object]:
    """Read all keys back and compare each byte."""
    count, replies = key_count(size_mb), connection.makefile("rb")
    missing = wrong = 0
    for first in range(0, count, _BATCH):
        batch = range(first, min(first + _BATCH, count))
        connection.sendall(b"".join(_command(b"GET", key(number)) for number in batch))
        for number in batch:
            found = _bulk(replies)
            missing += found is None
            wrong += found is not None and found != value(seed, number)
    connection.sendall(_command(b"DBSIZE"))
    total = int(replies.readline()[1:])
    return {"keys": count, "missing": missing, "wrong": wrong, "total_keys": total}


def main() -> int:
    verb, address, port, size_mb, seed = sys.argv[1:6]
    begun = time.monotonic()
    with socket.create_connection((address, int(port)), timeout=60) as connection:
        found = (fill if verb == "fill" else verify)(connection, int(size_mb), seed)
    print(json.dumps({**found, "seconds": time.monotonic() - begun}))  # noqa: T201  the demo reads it
    return 0


if __name__ == "__main__":
    sys.exit(main())

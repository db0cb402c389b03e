"""shared_pages.py [SIZE_MB]: memory that processes share, written by children that come and go, thrown away and written again.

Proves: no write of a process that has ended is lost, a page that was given back to the kernel (MADV_REMOVE) reads as zeros, and so does
one that was never written, wherever the processes go. A second process, which lives as long as the first, says what it sees of page 1.
"""

# ruff: noqa: PTH105
# One small program, as its neighbours: os, not pathlib.

import json
import mmap
import os
import random
import struct
import sys
import time

PAGE = 4096
STAMP = struct.Struct("<QQ")
NOTHING = bytes(PAGE)
STATUS = "/srv/shared_pages.json"


def stamped(page: int, version: int) -> bytes:
    return STAMP.pack(page, version) * (PAGE // STAMP.size) if version else NOTHING


def in_child(memory: mmap.mmap, pages: list[int], version: int) -> None:
    child = os.fork()
    if not child:
        for page in pages:
            memory[page * PAGE : page * PAGE + PAGE] = stamped(page, version)
        os._exit(0)
    os.waitpid(child, 0)


def echo(memory: mmap.mmap) -> None:
    """Page 1 comes back in page 2."""
    while True:
        memory[2 * PAGE : 3 * PAGE] = memory[PAGE : 2 * PAGE]
        time.sleep(0.002)


def main() -> None:
    pages = int(sys.argv[1] if len(sys.argv) > 1 else 48) * (1 << 20) // PAGE
    memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    token = os.urandom(16).hex()
    choose = random.Random(token)
    used = [page for page in range(8, pages) if page % 16]  # the others are never written: it is full of holes
    last = dict.fromkeys(used, 1)
    in_child(memory, used, 1)
    if not os.fork():
        echo(memory)
    count, problems = 1, []
    while True:
        count += 1
        written = choose.sample(used, 30)
        in_child(memory, written, count)
        last.update(dict.fromkeys(written, count))
        removed = choose.choice(used)
        memory.madvise(mmap.MADV_REMOVE, removed * PAGE, PAGE)
        last[removed] = 0
        for page in choose.sample(used, 200):
            if memory[page * PAGE : page * PAGE + PAGE] != stamped(page, last[page]):
                problems.append(f"page {page} says {STAMP.unpack_from(memory, page * PAGE)}, not {last[page]}")
        untouched = choose.randrange(16, pages, 16)
        if memory[untouched * PAGE : untouched * PAGE + PAGE] != NOTHING:
            problems.append(f"page {untouched} was never written and is not zero")
        memory[PAGE : 2 * PAGE] = stamped(1, count)
        deadline = time.monotonic() + 5
        while memory[2 * PAGE : 3 * PAGE] != stamped(1, count) and not problems:
            if time.monotonic() > deadline:
                problems.append("the other process does not see what is written")
            time.sleep(0.001)
        with open(STATUS + ".new", "w") as file:
            json.dump({"token": token, "count": count, "problems": problems[:20]}, file)
        os.replace(STATUS + ".new", STATUS)


if __name__ == "__main__":
    main()

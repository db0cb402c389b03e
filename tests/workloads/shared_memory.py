"""Two processes that meet in /dev/shm: a mapped file, one without a name, a semaphore, and 64 MB that nobody may lose.

The first counts in both mappings and lets the second go on through the semaphore; that one writes back what it read through mappings of
its own. What both see goes to /data/mounts.json.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import multiprocessing
import os
import time
from multiprocessing.synchronize import Semaphore
from pathlib import Path

SHM, DATA = Path("/dev/shm"), Path("/data")
BIG_BYTES = 64 << 20


def second(semaphore: Semaphore, nameless: int) -> None:
    named = mmap.mmap(os.open(SHM / "named", os.O_RDWR), 4096)
    gone = mmap.mmap(nameless, 4096)
    while True:
        semaphore.acquire()
        named[8:16], gone[8:16] = named[:8], gone[:8]
        named[16:24] = (SHM / "named").stat().st_ino.to_bytes(8, "little")


def main() -> None:
    big = os.urandom(BIG_BYTES)
    (SHM / "big").write_bytes(big)
    digest = hashlib.sha256(big).hexdigest()
    del big
    (SHM / "named").write_bytes(bytes(4096))
    (SHM / "gone").write_bytes(bytes(4096))
    named = mmap.mmap(os.open(SHM / "named", os.O_RDWR), 4096)
    nameless = os.open(SHM / "gone", os.O_RDWR)
    gone = mmap.mmap(nameless, 4096)
    (SHM / "gone").unlink()
    context = multiprocessing.get_context("fork")
    semaphore = context.Semaphore(0)
    context.Process(target=second, args=(semaphore, nameless)).start()
    count = 0
    while True:
        count += 1
        named[:8] = gone[:8] = count.to_bytes(8, "little")
        semaphore.release()
        deadline = time.monotonic() + 5
        while int.from_bytes(named[8:16], "little") != count and time.monotonic() < deadline:
            time.sleep(0.001)
        room = os.statvfs(SHM)
        said = {
            "count": count,
            "named": int.from_bytes(named[8:16], "little"),
            "gone": int.from_bytes(gone[8:16], "little"),
            "one_inode": int.from_bytes(named[16:24], "little") == (SHM / "named").stat().st_ino,
            "big": hashlib.sha256((SHM / "big").read_bytes()).hexdigest() == digest,
            "size_bytes": room.f_blocks * room.f_frsize,
            "names": sorted(path.name for path in SHM.iterdir()),
            "mode": oct(SHM.stat().st_mode),
        }
        (DATA / "new").write_text(json.dumps(said))
        (DATA / "new").rename(DATA / "mounts.json")
        time.sleep(0.02)


if __name__ == "__main__":
    main()

"""write_memory.py SIZE_MB RATE_MB_S [STATUS]: writes to its memory, page after page in random order, as fast as that.

Proves: what a policy does with a container that is busy. Half a megabyte at a time; one word a page, so that it takes little of the
processor. STATUS says how fast it really is.
"""
# ruff: noqa: PTH105
# One small program: os, not pathlib.

import json
import mmap
import os
import random
import sys
import time

PAGE = 4096
BATCH = 128


def main() -> None:
    size_mb, rate_mb_s = int(sys.argv[1]), float(sys.argv[2])
    status = sys.argv[3] if len(sys.argv) > 3 else "/srv/write_memory.json"
    pages = size_mb * (1 << 20) // PAGE
    memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    filling = os.urandom(PAGE)
    for page in range(pages):
        memory[page * PAGE : (page + 1) * PAGE] = filling
        memory[page * PAGE] = page % 256
    order = list(range(0, pages * PAGE, PAGE))
    random.shuffle(order)
    writes, at, report_at, begun = 0, 0, 0.0, time.monotonic()
    while True:
        value = os.urandom(8)  # or what is written would be what is there
        for offset in order[at : at + BATCH]:
            memory[offset : offset + 8] = value
        writes += BATCH
        at = (at + BATCH) % pages
        now = time.monotonic()
        if now >= report_at:
            report_at = now + 0.2
            with open(status + ".new", "w") as file:
                json.dump({"count": writes, "mb_s": writes * PAGE / 1e6 / max(now - begun, 1e-3)}, file)
            os.replace(status + ".new", status)
        ahead_s = writes * PAGE / (rate_mb_s * 1e6) - (now - begun)
        if ahead_s > 0:
            time.sleep(min(ahead_s, 0.1))
        elif ahead_s < -1:
            begun = now - writes * PAGE / (
                rate_mb_s * 1e6
            )  # it stood still, or was throttled: it does not make up for it


if __name__ == "__main__":
    main()

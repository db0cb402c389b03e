"""discards.py [SIZE_MB [STATUS [locked]]]: memory that is written, thrown away and written again, page by page, at random.

Proves: a page that was discarded (MADV_DONTNEED) reads as zeros wherever the process goes, also when an older version of it was sent
ahead; a page that was never touched does so too. Every eighth page is never touched: the memory is full of holes.
`locked`: one page more is locked.
"""
# ruff: noqa: PTH105
# One small program with descriptors that stay open: os, not pathlib.

import ctypes
import json
import mmap
import os
import random
import struct
import sys
import time

PAGE = 4096
HEAD = struct.Struct("<QQ")
NOTHING = bytes(PAGE)


def main() -> None:
    size_mb = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    status = sys.argv[2] if len(sys.argv) > 2 else "/srv/discards.json"
    token = os.urandom(16).hex()
    pages = size_mb * (1 << 20) // PAGE
    memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.argv[3:] == ["locked"]:
        locked = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # for as long as this name is there
        address = ctypes.addressof(ctypes.c_char.from_buffer(locked))
        if ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t(PAGE)):
            raise OSError(ctypes.get_errno(), "mlock")
    choose = random.Random(token)
    used = [page for page in range(pages) if page % 8]
    last = dict.fromkeys(used, 0)  # the number of each page's last write, 0 when it was thrown away
    for page in used:
        last[page] = page
        HEAD.pack_into(memory, page * PAGE, page, page)
    count, problems, report_at = pages, [], 0.0
    while True:
        for _ in range(64):
            count += 1
            page = choose.choice(used)
            found = memory[page * PAGE : page * PAGE + PAGE]
            expected = HEAD.pack(page, last[page]) + NOTHING[HEAD.size :] if last[page] else NOTHING
            if found != expected:
                problems.append(f"page {page} says {HEAD.unpack_from(found)}, not {last[page]}")
            if choose.random() < 0.5:
                last[page] = count
                HEAD.pack_into(memory, page * PAGE, page, count)
            else:
                last[page] = 0
                memory.madvise(mmap.MADV_DONTNEED, page * PAGE, PAGE)
            untouched = choose.randrange(0, pages, 8)
            if count % 1024 == 0 and memory[untouched * PAGE : untouched * PAGE + PAGE] != NOTHING:
                problems.append(f"page {untouched} was never written and is not zero")
        now = time.monotonic()
        if now >= report_at:
            report_at = now + 0.2
            with open(status + ".new", "w") as file:
                json.dump({"token": token, "count": count, "problems": problems[:20]}, file)
            os.replace(status + ".new", status)
        time.sleep(0.005)


if __name__ == "__main__":
    main()

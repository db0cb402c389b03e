"""dirty_memory.py [SIZE_MB [RATE_MB_S [STATUS]]]: holds memory, writes to it all the time, and knows what must be in
it.

Proves: private anonymous memory, page by page, while it changes. Each page begins with its number and the number of
the write that was its last; a page that lost a write, or has another's contents, is a problem. Half of each page is
random, so that it does not compress. RATE_MB_S 0 = as fast as it can.
"""
# ruff: noqa: PTH105
# One small program with descriptors that stay open: os, not pathlib.

import json
import mmap
import os
import random
import struct
import sys
import time

PAGE = 4096
HEAD = struct.Struct("<QQ")


def main() -> None:
    size_mb = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    rate_mb_s = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    status = sys.argv[3] if len(sys.argv) > 3 else "/srv/dirty_memory.json"
    token = os.urandom(16).hex()
    pages = size_mb * (1 << 20) // PAGE
    memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    filling = os.urandom(PAGE // 2)
    last = [0] * pages  # the number of each page's last write
    for page in range(pages):
        memory[page * PAGE + HEAD.size : page * PAGE + PAGE // 2] = filling[HEAD.size :]
        HEAD.pack_into(memory, page * PAGE, page, 0)
    choose = random.Random(token)
    writes, checked, problems, report_at, begun = 0, 0, [], 0.0, time.monotonic()
    while True:
        for _ in range(256):
            writes += 1
            page = choose.randrange(pages)
            found = HEAD.unpack_from(memory, page * PAGE)
            if found != (page, last[page]):
                problems.append(f"page {page} says {found}, not {(page, last[page])}")
            last[page] = writes
            HEAD.pack_into(memory, page * PAGE, page, writes)
        # And one page after the other, written or not, with all that is in it; all of them in a few seconds.
        for _ in range(256):
            page = checked % pages
            checked += 1
            if memory[page * PAGE + HEAD.size : page * PAGE + PAGE // 2] != filling[HEAD.size :]:
                problems.append(f"page {page}: its random half is not what was written")
            if HEAD.unpack_from(memory, page * PAGE) != (page, last[page]):
                problems.append(f"page {page}: its last write is lost")
        now = time.monotonic()
        if now >= report_at:
            report_at = now + 0.2
            state = {"token": token, "count": writes, "checked": checked, "problems": problems[:20]}
            with open(status + ".new", "w") as file:
                json.dump(state, file)
            os.replace(status + ".new", status)
        if rate_mb_s:
            ahead_s = writes * PAGE / (rate_mb_s * 1e6) - (now - begun)
            if ahead_s > 0:
                time.sleep(min(ahead_s, 0.1))
            elif ahead_s < -1:
                begun = now - writes * PAGE / (rate_mb_s * 1e6)  # frozen for a while: do not make up for it


if __name__ == "__main__":
    main()

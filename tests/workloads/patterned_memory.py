"""patterned_memory.py [SIZE_MB [PAGES_A_SECOND [DIRECTORY]]]: two processes whose memory is a function of how often they have written.

Write number n goes to a page that n alone decides, and fills it with (page, n, who), again and again. So what each page must be follows
from the number of writes, which is told on stdout as it grows, and from nothing else in the memory that is proven: a tracker that missed
a page together with the table of pages would still be found out. The second process is forked when the memory is filled: it writes to
copies of the first's pages.

Write a word into DIRECTORY/ask: each process compares all its pages and says so in DIRECTORY/NAME.json, with that word.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
from pathlib import Path

PAGE = 4096
RECORD = struct.Struct("<QQQQ")
HOT = 8  # one page of so many is written often
TICK_S = 0.05
TOLD_EVERY = 500


def page_of(write: int, pages: int) -> int:
    """Most writes go to a small part of the memory, some anywhere."""
    spread = write * 2654435761 % (1 << 32)
    return spread % (pages if write % 4 == 0 else pages // HOT)


def content(page: int, write: int, who: int) -> bytes:
    return RECORD.pack(page, write, who, page * 31 + write * 17 + who) * (PAGE // RECORD.size)


def compared(memory: mmap.mmap, pages: int, writes: int, who: int) -> list[str]:
    """What is wrong with it after `writes` writes of this process."""
    last = {page_of(write, pages): write for write in range(1, writes + 1)}
    wrong = []
    for page in range(pages):
        # Never written by this process: as the first one had filled it before it forked.
        expected = content(page, last[page], who) if page in last else content(page, 0, 0)
        found = memory[page * PAGE : (page + 1) * PAGE]
        if found != expected:
            wrong.append(f"page {page} begins with {RECORD.unpack_from(found)}, not {RECORD.unpack_from(expected)}")
    return wrong


def main() -> None:
    size_mb = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 400.0
    directory = Path(sys.argv[3] if len(sys.argv) > 3 else "/srv")
    pages = size_mb * (1 << 20) // PAGE
    memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(pages):
        memory[page * PAGE : (page + 1) * PAGE] = content(page, 0, 0)
    who = 1 if os.fork() else 2
    name = ("", "first", "second")[who]
    writes, answered = 0, ""
    while True:
        for _ in range(max(1, int(rate * TICK_S))):
            writes += 1
            page = page_of(writes, pages)
            memory[page * PAGE : (page + 1) * PAGE] = content(page, writes, who)
            if writes % TOLD_EVERY == 0:
                print(f"{name} {writes}", flush=True)
        asked = _read(directory / "ask")
        if asked and asked != answered:
            wrong = compared(memory, pages, writes, who)
            answer = {"asked": asked, "writes": writes, "pages": pages, "wrong": wrong[:20], "wrong_pages": len(wrong)}
            new = directory / f"{name}.new"
            new.write_text(json.dumps(answer))
            new.replace(directory / f"{name}.json")
            answered = asked
        time.sleep(TICK_S)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()

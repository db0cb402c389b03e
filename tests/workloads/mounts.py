"""Writes where its container has mounts: a file that grows and a mapping in /data, a file in memory in /run; says so in /data/mounts.json.

What it reads back of all of them is part of what it says. Lines on stdin are not read.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from pathlib import Path

DATA, MEMORY = Path("/data"), Path("/run")


def main() -> None:
    log = (DATA / "log").open("a+b", buffering=0)
    (DATA / "map").write_bytes(bytes(4096))
    mapping = mmap.mmap(os.open(DATA / "map", os.O_RDWR), 4096)
    secret = (MEMORY / "secret").open("w+b", buffering=0)
    secret.write(b"in memory")
    gone = (DATA / "gone").open("w+b", buffering=0)  # a file without a name
    gone.write(b"nameless")
    (DATA / "gone").unlink()
    count = 0
    while True:
        count += 1
        log.write(b"%d\n" % count)
        mapping[:8] = count.to_bytes(8, "little")
        said = {
            "count": count,
            "lines": (DATA / "log").read_bytes().count(b"\n"),
            "mapped": int.from_bytes((DATA / "map").read_bytes()[:8], "little"),
            "secret": os.pread(secret.fileno(), 100, 0).decode(),
            "named_secret": (MEMORY / "secret").read_text(),
            "gone": os.pread(gone.fileno(), 100, 0).decode(),
            "root": _write(Path("/srv/x")),
            "read_only": _write(Path("/conf/x")),
        }
        (DATA / "next.json").write_text(json.dumps(said))
        (DATA / "next.json").rename(DATA / "mounts.json")
        time.sleep(0.005)


def _write(path: Path) -> int:
    try:
        path.write_text("x")
    except OSError as exc:
        return exc.errno or 0
    return 0


if __name__ == "__main__":
    main()

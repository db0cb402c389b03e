"""counter.py [STATUS]: counts, in memory and in a file that stays open, and prints each hundredth number.

Proves: memory, an open file and its position, sleeping in a system call, stdout and the order of what was written
to it.
"""
# ruff: noqa: PTH105, SIM115
# One small program with descriptors that stay open: os, not pathlib.

import json
import os
import sys
import time


def main() -> None:
    status = sys.argv[1] if len(sys.argv) > 1 else "/srv/counter.json"
    token = os.urandom(16).hex()
    count, problems = 0, []
    # One record of fixed length after the other: the position is the count.
    journal = open(status + ".journal", "wb+", buffering=0)
    report_at = 0.0
    while True:
        count += 1
        journal.write(b"%011d\n" % count)
        if journal.tell() != 12 * count:
            problems.append(f"at {count} the file's position is {journal.tell()}, not {12 * count}")
        if count % 100 == 0:
            print(f"{token} {count}", flush=True)
        if time.monotonic() >= report_at:
            report_at = time.monotonic() + 0.2
            with open(status + ".new", "w") as file:
                json.dump({"token": token, "count": count, "problems": problems}, file)
            os.replace(status + ".new", status)
        time.sleep(0.005)


if __name__ == "__main__":
    main()

"""The witness inside the container, and its outside observer. Standard library only: one file, run in both places.

    python fault_tick.py tick ADDRESS PORT FILE     in the container: every 10 ms the next number, appended to FILE, then sent out by UDP
    python fault_tick.py hear ADDRESS PORT          outside: what was heard, as JSON, for each line on stdin

A container cannot know its host; what it can see of it is the device number of its root, which every restore makes anew. The number
that it counts is part of its memory: two copies that ran of one life send the same number from two roots, and a copy of the past goes
on where it was. The observer needs no clock but the machine's, which both hosts share here.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from pathlib import Path

ROOT = Path("/")
EVERY_S = 0.01
SHOWN = 3


def tick(address: str, port: int, path: str) -> None:
    """For ever."""
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    number = 0
    while True:
        number += 1
        _append(file, b"%d\n" % number)
        root, now = _here()
        try:
            out.sendto(json.dumps([number, root, now]).encode(), (address, port))
        except OSError:
            pass  # no link, for now: it is the next one that counts
        time.sleep(EVERY_S)


def _append(file: int, line: bytes) -> None:
    """All of it, before anybody hears of it: a disk may be full for a while."""
    while line:
        try:
            line = line[os.write(file, line) :]
        except OSError:
            time.sleep(EVERY_S)


def _here() -> tuple[int, int]:
    """(root, time), of one and the same instant: it may be moved between two calls."""
    while True:
        before, now, after = ROOT.stat().st_dev, time.time_ns(), ROOT.stat().st_dev
        if before == after:
            return before, now


class Heard:
    """Numbers since the last report."""

    def __init__(self) -> None:
        self.since_ns = time.time_ns()
        self.roots: dict[int, int] = {}  # number: from which root
        self.times: list[tuple[int, int]] = []  # (when it was sent, root)
        self.twice: list[int] = []

    def add(self, number: int, root: int, sent_ns: int) -> None:
        if sent_ns < self.since_ns:
            return
        if self.roots.setdefault(number, root) != root:
            self.twice.append(number)
        self.times.append((sent_ns, root))

    def report(self) -> dict[str, object]:
        """`problems`: two copies that ran. `last`: the highest number, which was on the disk before it was sent."""
        turns: list[int] = []
        for _, root in sorted(self.times):
            if not turns or turns[-1] != root:
                turns.append(root)
        problems = []
        if len(turns) != len(set(turns)):
            problems.append(f"copies ran by turns: {len(turns)} turns of {len(set(turns))} copies")
        if self.twice:
            problems.append(f"{len(self.twice)} numbers came from two copies: {self.twice[:SHOWN]}")
        return {
            "copies": len(set(turns)),
            "last": max(self.roots, default=0),
            "heard": len(self.times),
            "problems": problems,
        }


def hear(address: str, port: int) -> None:
    """Until stdin ends."""
    inlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inlet.bind((address, port))
    heard = Heard()
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([inlet, sys.stdin], [], [])
        if inlet in ready:
            heard.add(*json.loads(inlet.recv(200)))
        if sys.stdin in ready:
            if not sys.stdin.readline():
                return
            print(json.dumps(heard.report()), flush=True)
            heard = Heard()


if __name__ == "__main__":
    if sys.argv[1] == "tick":
        tick(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        hear(sys.argv[2], int(sys.argv[3]))

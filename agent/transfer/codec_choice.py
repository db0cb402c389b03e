"""Which codec a stream uses: fixed by its user, or found out while it runs from what the link takes and what the processors have left.

The thresholds are where a codec's own speed on one core crosses what it saves on the wire: shared/design/performance.md 2.2 and 3.4.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from agent.transfer import codecs
from agent.transfer.codecs import RAW, Codec, Setting

FAST_BYTES_PER_S = 350e6  # nothing packs faster than this link takes
LZ4_BYTES_PER_S = 120e6
SLOW_BYTES_PER_S = 20e6
IDLE_ENOUGH = 0.25  # share of all processors; with less the codec takes from the containers and from ssh
FIRST_LOOK_BYTES = 8 << 20  # pipes, ssh's window and the kernel's buffers swallow some megabytes whatever the link
LOOK_EVERY_BYTES = 32 << 20
RETRY_BYTES = 64 << 20  # data that did not shrink is tried again after this much
GROWTH = 1.25  # behind a codec the link is seldom the limit, so it looks faster than it is: believed bit by bit
_STAT = Path("/proc/stat")


class Choice(Protocol):
    """Asked by the thread that makes frames, told by those that pack and write them."""

    def setting(self) -> Setting: ...

    def packed(self, raw: int, wire: int) -> None:
        """A frame of `raw` bytes was tried and became `wire`."""

    def wrote(self, wire: int, seconds: float) -> None:
        """`wire` bytes were taken by the link in `seconds`, waiting for a limit not counted."""


class Fixed:
    """What the user said."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def setting(self) -> Setting:
        return self._setting

    def packed(self, raw: int, wire: int) -> None:
        pass

    def wrote(self, wire: int, seconds: float) -> None:
        pass


class Auto:
    """By measurement. `limit`: the bandwidth in bytes per second that the user allows now, 0 = as much as there is."""

    def __init__(self, limit: Limit) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._setting = choose(0.0, float(limit.rate), 1.0) if limit.rate else RAW
        self._link = 0.0
        self._wire = self._tried = self._shrunk = self._rest = 0
        self._seconds = 0.0
        self._next = FIRST_LOOK_BYTES
        self._cpu = _cpu_ticks()

    def setting(self) -> Setting:
        with self._lock:
            return RAW if self._rest > 0 else self._setting

    def packed(self, raw: int, wire: int) -> None:
        with self._lock:
            self._tried += raw
            self._shrunk += wire
            if self._tried >= FIRST_LOOK_BYTES:
                if self._tried < self._shrunk * codecs.WORTH_IT:
                    self._rest = RETRY_BYTES
                self._tried = self._shrunk = 0

    def wrote(self, wire: int, seconds: float) -> None:
        with self._lock:
            self._wire += wire
            self._seconds += seconds
            self._rest -= wire
            if self._wire < self._next:
                return
            link = self._wire / max(self._seconds, 1e-6)
            self._link = min(link, self._link * GROWTH) if self._setting.codec != Codec.NONE and self._link else link
            before, self._cpu = self._cpu, _cpu_ticks()
            self._setting = choose(self._link, float(self._limit.rate), _idle(before, self._cpu))
            self._wire, self._seconds, self._next = 0, 0.0, LOOK_EVERY_BYTES


class Limit(Protocol):
    @property
    def rate(self) -> int: ...


def choose(link: float, limit: float, idle: float) -> Setting:
    """`link`: bytes per second that it takes, 0 = not known yet; `limit`: what the user allows, 0 = all; `idle`: share of all processors.

    A limit is no sign of a lack of processors, a slow link may be one: ssh needs them too.
    """
    if limit and (not link or limit <= link):
        link, idle = limit, 1.0
    if not link or link >= FAST_BYTES_PER_S or idle < IDLE_ENOUGH:
        return RAW
    if link >= LZ4_BYTES_PER_S:
        return Setting(Codec.LZ4)
    return Setting(Codec.ZSTD, 1 if link >= SLOW_BYTES_PER_S else 3)


def choice(name: str, limit: Limit) -> Choice:
    """`name`: one of codecs.NAMES."""
    return Auto(limit) if name == "auto" else Fixed(codecs.FIXED[name])


def threads() -> int:
    """That pack: one processor is ssh's."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _cpu_ticks() -> tuple[int, int]:
    """(idle, all) of all processors since boot."""
    fields = [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def _idle(before: tuple[int, int], after: tuple[int, int]) -> float:
    spent = after[1] - before[1]
    return (after[0] - before[0]) / spent if spent else 1.0

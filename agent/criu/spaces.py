"""What of a lazily restored address space is still missing, as ranges: the arithmetic behind `filler.py`.

A range [start, end) of the process lies at offset `start - shift` of its memory file; `shift` is 0 until the process moves the
range with mremap. Standard library only, no system calls.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import attrgetter

PAGE = 4096


@dataclass(frozen=True)
class Missing:
    """Bytes [start, end) of the address space, page aligned, stored at `start - shift`."""

    start: int
    end: int
    shift: int = 0

    @property
    def offset(self) -> int:
        return self.start - self.shift


_start, _end = attrgetter("start"), attrgetter("end")


class Space:
    """The missing ranges of one process, sorted and disjoint."""

    def __init__(self, ranges: list[Missing]) -> None:
        self._ranges = sorted(ranges, key=lambda r: r.start)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    @property
    def ranges(self) -> list[Missing]:
        return list(self._ranges)

    @property
    def missing_bytes(self) -> int:
        return sum(r.end - r.start for r in self._ranges)

    def copy(self) -> Space:
        """For a forked child: what the parent lacks, the child lacks."""
        return Space(self._ranges)

    def first(self, limit: int) -> Missing | None:
        """The lowest missing range, cut to `limit` bytes; None when nothing is missing."""
        if not self._ranges:
            return None
        r = self._ranges[0]
        return Missing(r.start, min(r.end, r.start + limit), r.shift)

    def around(self, address: int, window: int) -> Missing | None:
        """The missing range that holds `address`, cut to the aligned window of `window` bytes around it; None if it is not missing."""
        at = bisect_right(self._ranges, address, key=_start) - 1
        if at < 0 or self._ranges[at].end <= address:
            return None
        r = self._ranges[at]
        low = address - address % window
        return Missing(max(r.start, low), min(r.end, low + window), r.shift)

    def drop(self, start: int, end: int) -> list[Missing]:
        """Forget [start, end): filled, unmapped or thrown away by the process. Returns what of it was missing."""
        first = bisect_right(self._ranges, start, key=_end)
        last = bisect_left(self._ranges, end, lo=first, key=_start)
        hit = self._ranges[first:last]
        if not hit:
            return []
        kept: list[Missing] = []
        if hit[0].start < start:
            kept.append(Missing(hit[0].start, start, hit[0].shift))
        if hit[-1].end > end:
            kept.append(Missing(end, hit[-1].end, hit[-1].shift))
        self._ranges[first:last] = kept
        return [Missing(max(r.start, start), min(r.end, end), r.shift) for r in hit]

    def add(self, ranges: list[Missing]) -> None:
        """`ranges` are missing as well; they are disjoint from those that are."""
        self._ranges.extend(ranges)
        self._ranges.sort(key=_start)

    def stored_in(self, start: int, end: int) -> list[Missing]:
        """What of the missing lies at [start, end) of the memory file, wherever the process has moved it."""
        found: list[Missing] = []
        for r in self._ranges:
            low, high = max(r.offset, start), min(r.end - r.shift, end)
            if low < high:
                found.append(Missing(low + r.shift, high + r.shift, r.shift))
        return found

    def move(self, old: int, new: int, length: int) -> None:
        """mremap: what was missing in [old, old + length) is now missing at `new`, from the same place of the file."""
        moved = self.drop(old, old + length)
        self.drop(new, new + length)
        distance = new - old
        self._ranges.extend(Missing(r.start + distance, r.end + distance, r.shift + distance) for r in moved)
        self._ranges.sort(key=lambda r: r.start)

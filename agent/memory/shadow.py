"""Dirty tracking by comparing: a 128-bit digest of every page that was sent, against the page as it is now.

For kernels without a way of their own, and for single processes that cannot be watched. It asks nothing of the process and costs
reading all of it at every look, the last one in the freeze included: about 0.6 s a GB on two cores.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from agent.memory.areas import page_entries, pages_where, populated, private_anonymous
from agent.memory.content import WORDS, PageDigests
from agent.memory.ranges import NOTHING, PAGE, Ranges, ranges
from agent.memory.tracker import Look

_CHUNK_PAGES = 256


class ShadowTracker:
    """A Tracker. What is compared is what went to the target, so it does not matter what happened between looking and sending."""

    stop_to_look = False

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._digests_of = PageDigests().of
        self._addresses: NDArray[np.uint64] = np.empty(0, np.uint64)  # sorted
        self._digests: NDArray[np.uint64] = np.empty((0, 2), np.uint64)  # of the page at the same index
        self._new: list[tuple[NDArray[np.uint64], NDArray[np.uint64]]] = []  # sent since the last look, in order

    @classmethod
    def watch(cls, pid: int) -> ShadowTracker:
        """Raises OSError without the process."""
        os.stat(f"/proc/{pid}/mem")  # noqa: PTH116  one call, no Path for it
        return cls(pid)

    def look(self, *, last: bool = False) -> Look:
        del last
        self._settle()
        changed: list[Ranges] = [NOTHING]
        areas = list(private_anonymous(self.pid))
        pagemap = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            try:
                buffer = np.empty(_CHUNK_PAGES * WORDS, np.uint64)
                for first, until in _populated(pagemap, areas).tolist():
                    for at in range(first, until, _CHUNK_PAGES * PAGE):
                        stop = min(at + _CHUNK_PAGES * PAGE, until)
                        changed.append(self._changed(memory, buffer[: (stop - at) // 8], at))
            finally:
                os.close(memory)
        finally:
            os.close(pagemap)
        return Look(ranges(np.concatenate(changed)), ranges(areas))

    def sent(self, addresses: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        self._new.append((addresses, self._digests_of(words)))

    def close(self) -> None:
        """Nothing of ours is in the process."""
        self._addresses, self._digests, self._new = np.empty(0, np.uint64), np.empty((0, 2), np.uint64), []

    def _changed(self, memory: int, words: NDArray[np.uint64], at: int) -> Ranges:
        """The pages of a chunk that are not known or not as they were sent."""
        addresses = np.uint64(at) + np.arange(len(words) // WORDS, dtype=np.uint64) * np.uint64(PAGE)
        if len(self._addresses):
            index = np.minimum(np.searchsorted(self._addresses, addresses), len(self._addresses) - 1)
            known = self._addresses[index] == addresses
        else:
            index, known = np.zeros(len(addresses), np.intp), np.zeros(len(addresses), np.bool_)
        same = known
        if known.any():
            try:
                whole = os.preadv(memory, [words.data.cast("B")], at) == words.nbytes
            except OSError:
                whole = False  # gone meanwhile: then it is changed
            same = known & whole
            if whole:
                same &= (self._digests[index] == self._digests_of(words)).all(axis=1)
        wanted = addresses[~same]
        return np.stack((wanted, wanted + np.uint64(PAGE)), axis=1)

    def _settle(self) -> None:
        """Take in what was sent; of a page that was sent twice the later digest holds."""
        if not self._new:
            return
        addresses = np.concatenate([*(each[0] for each in reversed(self._new)), self._addresses])
        digests = np.concatenate([*(each[1] for each in reversed(self._new)), self._digests])
        order = np.argsort(addresses, kind="stable")  # of equals the newest comes first
        addresses, digests = addresses[order], digests[order]
        newest = np.concatenate(([True], addresses[1:] != addresses[:-1]))
        self._addresses, self._digests = addresses[newest], digests[newest]
        self._new = []


def _populated(pagemap: int, areas: list[tuple[int, int]]) -> Ranges:
    found = [NOTHING]
    for start, end in areas:
        found += [pages_where(populated(entries), at) for at, entries in page_entries(pagemap, start, end)]
    return ranges(np.concatenate(found))

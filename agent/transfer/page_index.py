"""Which content each page of each task has, as far as one side knows: address -> page_digest, in sorted arrays.

What a source has sent, and what a target has kept of an earlier move. It only proposes (page_digest.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import zstandard
from numpy.typing import NDArray

from agent.errors import TransferError
from agent.transfer.page_digest import Digests

Addresses = NDArray[np.uint64]
Places = NDArray[np.uint64]  # offsets in a file, one a page
_HEAD = struct.Struct("<IQ")  # task, pages
_FEW = 8  # new pages are few where there are that many times as many


class TaskPages:
    """Of one task. What is noted counts from the next `settle()` on; of a page that was noted twice, the later."""

    def __init__(self) -> None:
        self.addresses: Addresses = np.empty(0, np.uint64)
        self.digests: Digests = np.empty(0, np.uint64)
        self.places: Places = np.empty(0, np.uint64)
        self._new: list[tuple[Addresses, Digests, Places]] = []

    def note(self, addresses: Addresses, digests: Digests, places: Places) -> None:
        if len(addresses):
            self._new.append((addresses, digests, places))

    def settle(self) -> None:
        if not self._new:
            return
        parts, self._new = self._new[::-1], []
        if sum(len(part[0]) for part in parts) > len(self.addresses) // _FEW:
            self.addresses, self.digests, self.places = _newest([*parts, (self.addresses, self.digests, self.places)])
            return
        # In the freeze: few, nearly all of them known. To sort all pages of a large task would take a tenth of a second.
        addresses, digests, places = _newest(parts)
        at, known = self.find(addresses)
        if not self.digests.flags.writeable:
            self.digests, self.places = self.digests.copy(), self.places.copy()
        self.digests[at[known]], self.places[at[known]] = digests[known], places[known]
        if not known.all():
            where = np.searchsorted(self.addresses, addresses[~known])
            self.addresses = np.insert(self.addresses, where, addresses[~known])
            self.digests = np.insert(self.digests, where, digests[~known])
            self.places = np.insert(self.places, where, places[~known])

    def same(self, addresses: Addresses, digests: Digests) -> NDArray[np.bool_]:
        """Which of these pages are known to have these digests."""
        at, known = self.find(addresses)
        if known.any():
            known &= self.digests[at] == digests
        return known

    def find(self, addresses: Addresses) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """(index of each, whether it is there)."""
        if not len(self.addresses):
            return np.zeros(len(addresses), np.intp), np.zeros(len(addresses), np.bool_)
        at = np.minimum(np.searchsorted(self.addresses, addresses), len(self.addresses) - 1)
        known: NDArray[np.bool_] = self.addresses[at] == addresses
        return at, known

    def forget(self, addresses: Addresses) -> None:
        """Nothing is known of these any more."""
        self.settle()
        at, known = self.find(addresses)
        if not known.any():
            return
        rest = np.ones(len(self.addresses), np.bool_)
        rest[at[known]] = False
        self.addresses, self.digests, self.places = self.addresses[rest], self.digests[rest], self.places[rest]


def _newest(parts: Sequence[tuple[Addresses, Digests, Places]]) -> tuple[Addresses, Digests, Places]:
    """Each page once, in order: as the first of `parts` has it."""
    addresses, digests, places = (np.concatenate([part[each] for part in parts]) for each in range(3))
    order = np.argsort(addresses, kind="stable")  # of equals the first comes first
    chosen = order[np.concatenate(([True], np.diff(addresses[order]) != 0))]
    return addresses[chosen], digests[chosen], places[chosen]


class PageIndex:
    """Of all tasks, by their pids inside the container."""

    def __init__(self) -> None:
        self._tasks: dict[int, TaskPages] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def task(self, task: int) -> TaskPages:
        return self._tasks.setdefault(task, TaskPages())

    def __iter__(self) -> Iterator[tuple[int, TaskPages]]:
        return iter(self._tasks.items())

    def packed(self, *, places: bool) -> bytes:
        """For a file (with places), or for the other side of a move: 8 bytes a page and what the addresses do not compress to."""
        parts = []
        for task, pages in self._tasks.items():
            pages.settle()
            parts.append(_HEAD.pack(task, len(pages.addresses)))
            # Differences of addresses are nearly all one page.
            parts.append(np.diff(pages.addresses, prepend=np.uint64(0)).tobytes())
            parts.append(pages.digests.tobytes())
            if places:
                parts.append(np.diff(pages.places, prepend=np.uint64(0)).tobytes())
        return zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True).compress(b"".join(parts))

    @classmethod
    def unpacked(cls, data: bytes, *, places: bool) -> PageIndex:
        """Raises TransferError for anything that packed() did not make."""
        made = cls()
        try:
            raw = zstandard.ZstdDecompressor().decompress(data)
            at = 0
            while at < len(raw):
                task, count = _HEAD.unpack_from(raw, at)
                at += _HEAD.size
                columns = []
                for _ in range(3 if places else 2):
                    columns.append(np.frombuffer(raw, np.uint64, count, at))
                    at += 8 * count
                pages = made.task(task)
                pages.addresses, pages.digests = np.cumsum(columns[0], dtype=np.uint64), columns[1]
                pages.places = np.cumsum(columns[2], dtype=np.uint64) if places else np.zeros(count, np.uint64)
        except (zstandard.ZstdError, ValueError, struct.error) as exc:
            raise TransferError(f"an index of pages that is none: {exc}") from exc
        return made

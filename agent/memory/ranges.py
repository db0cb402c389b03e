"""Sets of pages as sorted, disjoint address ranges in numpy arrays: no work per page in Python."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PAGE = 4096

Ranges = NDArray[np.uint64]  # shape (n, 2): byte addresses [start, end), page aligned, sorted, disjoint

NOTHING: Ranges = np.empty((0, 2), np.uint64)


def ranges(pairs: Iterable[tuple[int, int]] | Ranges) -> Ranges:
    """From (start, end) pairs in any order; neighbours are joined."""
    array = np.array(pairs if isinstance(pairs, np.ndarray) else list(pairs), np.uint64).reshape(-1, 2)
    return _from_pages(_to_pages(array))


def subtract(a: Ranges, b: Ranges) -> Ranges:
    return _from_pages(np.setdiff1d(_to_pages(a), _to_pages(b), assume_unique=True))


def intersect(a: Ranges, b: Ranges) -> Ranges:
    return _from_pages(np.intersect1d(_to_pages(a), _to_pages(b), assume_unique=True))


def union(a: Ranges, b: Ranges) -> Ranges:
    return _from_pages(np.union1d(_to_pages(a), _to_pages(b)))


def total_bytes(of: Ranges) -> int:
    return int((of[:, 1] - of[:, 0]).sum())


def _to_pages(of: Ranges) -> NDArray[np.uint64]:
    """Page numbers of all pages in `of`."""
    if not len(of):
        return np.empty(0, np.uint64)
    first = of[:, 0] // PAGE
    count = (of[:, 1] // PAGE - first).astype(np.int64)
    starts = np.repeat(first, count)
    within = np.arange(len(starts), dtype=np.uint64) - np.repeat(np.cumsum(count) - count, count).astype(np.uint64)
    return np.unique(starts + within)


def _from_pages(pages: NDArray[np.uint64]) -> Ranges:
    """The other way round; `pages` sorted and unique."""
    if not len(pages):
        return NOTHING
    breaks = np.flatnonzero(np.diff(pages) != 1)
    first = pages[np.concatenate(([0], breaks + 1))]
    last = pages[np.concatenate((breaks, [len(pages) - 1]))]
    return np.stack((first * PAGE, (last + 1) * PAGE), axis=1)

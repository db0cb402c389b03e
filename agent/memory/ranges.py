"""Sets of pages as sorted, disjoint address ranges in numpy arrays: the cost is that of the ranges, not of the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

PAGE = 4096

Ranges = NDArray[np.uint64]  # shape (n, 2): byte addresses [start, end), page aligned, sorted, disjoint, none empty

_Keep = Callable[[NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.bool_]]

_MANY = 4096  # ranges in both: below that the look before costs more than the cuts
NOTHING: Ranges = np.empty((0, 2), np.uint64)


def ranges(pairs: Iterable[tuple[int, int]] | Ranges) -> Ranges:
    """From (start, end) pairs in any order, which may overlap; neighbours are joined, empty ones dropped."""
    array = np.array(pairs if isinstance(pairs, np.ndarray) else list(pairs), np.uint64).reshape(-1, 2)
    array = array[array[:, 1] > array[:, 0]]
    if len(array) < 2:
        return array
    if (
        array[1:, 0] >= array[:-1, 1]
    ).all():  # sorted and disjoint already, as what the kernel says of pages is, but not always
        reach = array[:, 1]
    else:
        array = array[np.argsort(array[:, 0], kind="stable")]
        reach = np.maximum.accumulate(array[:, 1])
    first = np.concatenate(([True], array[1:, 0] > reach[:-1]))  # where nothing before reaches it
    last = np.concatenate((first[1:], [True]))
    return np.stack((array[first, 0], reach[last]), axis=1)


def subtract(a: Ranges, b: Ranges) -> Ranges:
    if not len(b):
        return a
    if len(b) > _MANY > len(a):
        b = _near(b, a)
    elif min(len(a), len(b)) > _MANY:  # of sets that are nearly the same there is little left to cut
        a = np.compress(~_covered(a, b), a, axis=0)
        b = np.compress(_touched(b, a), b, axis=0)
    return _combine(a, b, lambda in_a, in_b: in_a & ~in_b)


def intersect(a: Ranges, b: Ranges) -> Ranges:
    if not len(a) or not len(b):
        return NOTHING
    if len(a) > _MANY > len(b):
        a = _near(a, b)
    elif len(b) > _MANY > len(a):
        b = _near(b, a)
    return _combine(a, b, lambda in_a, in_b: in_a & in_b)


def union(a: Ranges, b: Ranges) -> Ranges:
    if not len(a) or not len(b):
        return a if len(a) else b
    return ranges(np.concatenate((a, b)))


def total_bytes(of: Ranges) -> int:
    return int((of[:, 1] - of[:, 0]).sum())


def cut(of: Ranges, size: int) -> Iterator[Ranges]:
    """Into parts of at most `size` bytes, in order."""
    ends = np.cumsum(of[:, 1] - of[:, 0])
    starts = ends - (of[:, 1] - of[:, 0])
    total = total_bytes(of)
    for low in range(0, total, size):
        high = min(low + size, total)
        first, last = int(np.searchsorted(ends, low, "right")), int(np.searchsorted(starts, high, "left"))
        part = of[first:last].copy()
        part[-1, 1] -= ends[last - 1] - np.uint64(high)
        part[0, 0] += np.uint64(low) - starts[first]
        yield part


def _covered(a: Ranges, b: Ranges) -> NDArray[np.bool_]:
    """Which of `a` lie within one of `b`."""
    if not len(b):
        return np.zeros(len(a), np.bool_)
    at = np.searchsorted(b[:, 0], a[:, 0], "right")  # the first that begins after it
    found: NDArray[np.bool_] = (at > 0) & (b[at - 1, 1] >= a[:, 1])
    return found


def _touched(a: Ranges, b: Ranges) -> NDArray[np.bool_]:
    """Which of `a` have something in common with `b`."""
    found: NDArray[np.bool_] = np.searchsorted(b[:, 0], a[:, 1], "left") > np.searchsorted(b[:, 1], a[:, 0], "right")
    return found


def _near(many: Ranges, few: Ranges) -> Ranges:
    """Those of `many` that have something in common with one of `few`, found by looking for each of the few; all where that is most."""
    first = np.searchsorted(many[:, 1], few[:, 0], "right")
    last = np.searchsorted(many[:, 0], few[:, 1], "left")
    counts = np.maximum(last - first, 0)
    if int(counts.sum()) > len(many) // 2:
        return many
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    near: Ranges = many[np.unique(np.repeat(first, counts) + within)]
    return near


def _combine(a: Ranges, b: Ranges, keep: _Keep) -> Ranges:
    """Cut both at all their bounds; the pieces that `keep` wants, joined."""
    bounds = np.concatenate((a.ravel(), b.ravel()))
    order = np.argsort(bounds, kind="stable")  # two sorted runs: merged in linear time
    bounds = bounds[order]
    inside = keep(_inside(order < a.size), _inside(order >= a.size))  # from each bound to the next
    inside[:-1] &= bounds[1:] > bounds[:-1]
    wanted = np.flatnonzero(inside[:-1])
    starts, ends = bounds[wanted], bounds[wanted + 1]
    if not len(starts):
        return NOTHING
    first = np.concatenate(([True], starts[1:] != ends[:-1]))
    return np.stack((starts[first], ends[np.concatenate((first[1:], [True]))]), axis=1)


def _inside(own: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """After each bound: whether an odd number of a set's own bounds, which are starts and ends in turn, has been passed."""
    odd: NDArray[np.bool_] = (
        np.cumsum(own.view(np.uint8), dtype=np.uint8) & 1 == 1
    )  # modulo 256: even or odd all the same
    return odd

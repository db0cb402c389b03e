"""In which order the moves of a plan go, and how long that takes with several at once."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEAST_MOVES = 3  # with different sizes, before a speed is made of them


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An earlier move that succeeded."""

    sent_bytes: int
    total_s: float
    downtime_s: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds; 0 = nothing is known."""

    total_s: float = 0.0
    downtime_s: float = 0.0


def predict(memory_bytes: int, own: Sequence[Sample], all: Sequence[Sample], bandwidth: int = 0) -> Prediction:
    """Of a move, from earlier ones of the same container, else from those of the fleet.

    Of the fleet's: a time for any move and one for each byte, as robust lines have them (medians of slopes). `bandwidth`: bytes per second
    that it may have, 0 = no limit.
    """
    floor_s = memory_bytes / bandwidth if bandwidth else 0.0
    if own:
        total = statistics.median(one.total_s for one in own)
        return Prediction(total_s=max(total, floor_s), downtime_s=statistics.median(one.downtime_s for one in own))
    if not all:
        return Prediction(total_s=floor_s)
    downtime = statistics.median(one.downtime_s for one in all)
    slope = _slope(all)
    base = max(0.0, statistics.median(one.total_s - slope * one.sent_bytes for one in all))
    return Prediction(total_s=max(base + slope * memory_bytes, floor_s), downtime_s=downtime)


def _slope(samples: Sequence[Sample]) -> float:
    """Seconds a byte, never below 0."""
    if len({one.sent_bytes for one in samples}) < LEAST_MOVES:
        return 0.0
    slopes = [
        (b.total_s - a.total_s) / (b.sent_bytes - a.sent_bytes)
        for i, a in enumerate(samples)
        for b in samples[i + 1 :]
        if a.sent_bytes != b.sent_bytes
    ]
    return max(0.0, statistics.median(slopes))


def longest_s(times: Iterable[float], parallel: int) -> float:
    """How long all of them take, begun in this order, `parallel` at once."""
    lanes = [0.0] * max(1, parallel)
    for time_s in times:
        heapq.heapreplace(lanes, lanes[0] + time_s)
    return max(lanes)


def order(times: Sequence[tuple[str, float]], *, deadline: bool) -> list[str]:
    """Names in the order of their moves: the longest first, so that none is left for the end; before a deadline the shortest, so
    that as many as can be are away by then.
    """
    return [name for name, _ in sorted(times, key=lambda one: (one[1] if deadline else -one[1], one[0]))]

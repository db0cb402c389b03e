"""How fast a move may send: a token bucket that its user can change while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PIECE_BYTES = 64 << 10  # what is taken at once: a slow limit is a steady trickle, not a frame every second
_BURST_S = 0.05  # what may be saved up while nothing is sent
_LEAST_WAIT_S = 0.001  # shorter sleeps cost more than they measure; what is overslept is saved up


class Bandwidth:
    """`rate`: bytes per second of all connections of one move together, 0 = no limit. Thread-safe."""

    def __init__(self, rate: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._tokens, self._at = 0.0, clock()
        self._changed = threading.Condition()

    @property
    def rate(self) -> int:
        return self._rate

    def set(self, rate: int) -> None:
        """From now on, for those who wait too."""
        with self._changed:
            self._refill()
            self._rate = rate
            self._changed.notify_all()

    def take(self, count: int) -> None:
        """Wait until `count` bytes, at most PIECE_BYTES, may go."""
        with self._changed:
            while self._rate:
                self._refill()
                if self._tokens >= count:
                    self._tokens -= count
                    return
                self._changed.wait(max(_LEAST_WAIT_S, (count - self._tokens) / self._rate))

    def _refill(self) -> None:
        now = self._clock()
        most = max(float(PIECE_BYTES), self._rate * _BURST_S)
        self._tokens = min(most, self._tokens + (now - self._at) * self._rate)
        self._at = now

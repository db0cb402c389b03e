"""Who is at a container's files from outside, and what must not happen meanwhile.

What writes keeps the container from moving, for what it writes would be lost; a start waits for it, for two overlays with one writable
layer are undefined. What only reads keeps nobody from anything, and is cut off when the container leaves this host.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SETTLE_S = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Visit:
    """`cut`: ends it, from any thread, any number of times; returns when it has ended."""

    cut: Callable[[], None]
    writes: bool


class Visits:
    """Of all containers of a host. Thread-safe. Begin one under the container's lock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._visits: defaultdict[str, set[Visit]] = defaultdict(set)

    @contextmanager
    def visit(self, container_id: str, cut: Callable[[], None], *, writes: bool) -> Iterator[None]:
        """While the body runs somebody is at the container's files."""
        visit = Visit(cut=cut, writes=writes)
        with self._changed:
            self._visits[container_id].add(visit)
        try:
            yield
        finally:
            with self._changed:
                self._visits[container_id].discard(visit)
                if not self._visits[container_id]:
                    del self._visits[container_id]
                self._changed.notify_all()

    def writing(self, container_id: str) -> bool:
        with self._changed:
            return any(visit.writes for visit in self._visits.get(container_id, ()))

    def wait(self, container_id: str, timeout_s: float) -> bool:
        """Until nothing writes any more; False at the time limit. Not under the container's lock."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.writing(container_id), timeout_s)

    def settle(self, container_id: str, timeout_s: float = SETTLE_S) -> None:
        """Wait for what writes, and cut it off at the time limit.

        What writes to a container without processes holds its lock: whoever has the lock waits here only for what is left of a life before.
        """
        if not self.wait(container_id, timeout_s):
            self.cut(container_id, readers=False)

    def cut(self, container_id: str, *, readers: bool = True) -> None:
        """End all of them; when this returns none of them touches a file any more."""
        with self._changed:
            visits = list(self._visits.get(container_id, ()))
        for visit in visits:
            if readers or visit.writes:
                visit.cut()

"""A move is kept in sight while the coordinator is away: it is in its journal, and goes on or is undone when that is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from migrate.errors import Unreachable

if TYPE_CHECKING:
    from migrate.client import Client, Moving
    from migrate.records import Event, Migration

PATIENCE_S = 120.0
PAUSE_S = 0.5


class Sight:
    """As Moving, which it follows; for one thread that iterates, and any that looks at the rest or closes it.

    Steps that were seen before the coordinator went away do not come again. `told` gets news of it, for people. Unreachable where
    it has not come back in `patience_s`.
    """

    def __init__(
        self, client: Client, moving: Moving, told: Callable[[str], None], *, patience_s: float = PATIENCE_S
    ) -> None:
        self._client = client
        self._moving = moving
        self._told = told
        self._patience_s = patience_s
        self._closed = threading.Event()
        self._seen: set[tuple[str, str, int]] = set()

    @property
    def migration_id(self) -> str:
        return self._moving.migration_id

    @property
    def record(self) -> Migration | None:
        return self._moving.record

    def close(self) -> None:
        self._closed.set()
        self._moving.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                for event in self._moving:
                    if self._is_new(event):
                        yield event
                return
            except Unreachable as exc:
                if not self.migration_id or self._closed.is_set() or self._moving.record is not None:
                    raise  # with a record it is the move that failed so: a host did not answer
                self._find_again(exc)

    def _is_new(self, event: Event) -> bool:
        from migrate.records import Step

        if not isinstance(event, Step):
            return True
        key = (event.step, event.event, event.unix_ns)
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _find_again(self, lost: Unreachable) -> None:
        migration_id = self.migration_id
        self._told(
            f"the coordinator does not answer; move {migration_id} goes on, or is undone, when it is back: "
            f"waiting for it, {self._patience_s:.0f} s at most"
        )
        give_up = time.monotonic() + self._patience_s
        while not self._closed.wait(PAUSE_S):
            try:
                self._client.version()
            except Unreachable as exc:
                if time.monotonic() < give_up:
                    continue
                raise Unreachable(
                    f"the coordinator has not come back in {self._patience_s:.0f} s: {exc.message}",
                    hint=f"start it (migrate-coordinator --config FILE, or migrate lab up), then: migrate watch {migration_id}",
                    touched="something",
                ) from lost
            self._told("the coordinator is back")
            self._moving = self._client.watch(migration_id)
            self._moving.migration_id = migration_id
            return
        raise lost

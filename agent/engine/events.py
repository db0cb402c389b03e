"""What happened on this host, remembered and told: the agent's part of `migrate events`.

One line of JSON an event, in a file that is cut when it has grown to twice what is kept, so that a restarted agent still
tells what was before it and numbers go on growing. A crash may cut the last line: that event is lost.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent import atomic

KEPT = 2048
LOOK_S = 1.0  # how long who follows does not ask whether anybody still wants to know

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """As Event in protos/types.proto."""

    type: str
    action: str
    id: str
    name: str
    unix_ns: int
    sequence: int
    attributes: dict[str, str] = field(default_factory=dict)


class EventLog:
    """One an agent. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._lines = 0
        self._read()
        self._sequence = self._events[-1].sequence if self._events else 0

    def publish(
        self, kind: str, action: str, identifier: str, name: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Remember it and wake who follows. Never raises: an event that cannot be written is still told."""
        with self._changed:
            self._sequence += 1
            event = Event(
                type=kind,
                action=action,
                id=identifier,
                name=name,
                unix_ns=time.time_ns(),
                sequence=self._sequence,
                attributes=dict(attributes or {}),
            )
            self._events.append(event)
            try:
                self._write(event)
            except OSError as exc:
                log.warning("event %s of %s was not written: %s", action, name, exc)
            self._changed.notify_all()

    def lacks(self, identifier: str, action: str, since_unix_ns: int) -> bool:
        """Whether it reaches back to that instant and has no such event since: the agent was away when it happened."""
        with self._changed:
            if not self._events or self._events[0].unix_ns > since_unix_ns:
                return False
            return not any(
                (event.id, event.action) == (identifier, action) and event.unix_ns >= since_unix_ns
                for event in self._events
            )

    def read(
        self,
        *,
        since_unix_ns: int = 0,
        until_unix_ns: int = 0,
        after: int = 0,
        follow: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Iterator[Event]:
        """Events oldest first, those with a higher number than `after`; with `follow` also what comes, until `until_unix_ns`
        (0 = no end) or until `wanted` says no.
        """
        while True:
            with self._changed:
                fresh = [event for event in self._events if event.sequence > after]
                if follow and not fresh:
                    self._changed.wait(LOOK_S)
            for event in fresh:
                after = event.sequence
                if event.unix_ns >= since_unix_ns and (not until_unix_ns or event.unix_ns <= until_unix_ns):
                    yield event
            if not follow or not wanted() or (until_unix_ns and time.time_ns() > until_unix_ns):
                return

    def _write(self, event: Event) -> None:
        if self._lines >= 2 * KEPT:
            atomic.write(self._path, "".join(_line(one) for one in self._events))
            self._lines = len(self._events)
            return
        with self._path.open("a") as file:
            file.write(_line(event))
        self._lines += 1

    def _read(self) -> None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            self._lines += 1
            try:
                self._events.append(Event(**json.loads(line)))
            except (TypeError, ValueError):
                continue  # cut by a crash
        if text and not text.endswith("\n"):
            with self._path.open("a") as file:
                file.write("\n")


def _line(event: Event) -> str:
    return json.dumps(dataclasses.asdict(event)) + "\n"

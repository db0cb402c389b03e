"""What watchers of a move get: rows of its journal, progress from within a step, and the record at the end.

The journal is the history; a feed only carries what is not in it (progress) and the news that it has grown. So a
watcher that is too slow loses progress lines, never a row, and never holds up the move.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migrate.coordinator.store import Migration, MoveState
from migrate.errors import ErrorRecord
from migrate.saga.journal import SAGA, Entry
from migrate.saga.journal import Event as JournalEvent

MOST_PROGRESS = 256  # lines that a watcher may be behind

# The frozen window, in the words of agent/criu/departure.py, arrival.py and agent/handover/target.py: no task runs from
# the source's FROZEN to the target's RUNNING; the network knows the new place at the target's ANNOUNCED.
FROZEN = "frozen"
RUNNING = "running"
ANNOUNCED = "announced"
THAWED = "thawed"  # on the source, which in a rehearsal goes on at once


@dataclass(frozen=True, kw_only=True)
class Progress:
    """As Progress in protos/types.proto."""

    phase: str
    text: str
    done_bytes: int
    total_bytes: int
    facts: Mapping[str, float]
    unix_ns: int


@dataclass(frozen=True, kw_only=True)
class StepEvent:
    """A row of the journal; `step` is "saga" for what concerns the whole. `error`: the message, or ""."""

    seq: int
    step: str
    event: str
    unix_ns: int
    facts: Mapping[str, Any]
    error: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One instant on one host."""

    name: str
    unix_ns: int
    host: str


@dataclass(frozen=True, kw_only=True)
class MigrationRecord:
    """One move, complete. `facts`: seconds, by name; `sent_bytes` by kind; `step`: the last that began, or "saga"."""

    migration: Migration
    step: str
    journal: tuple[StepEvent, ...]
    facts: Mapping[str, float]
    sent_bytes: Mapping[str, int]
    marks: tuple[Mark, ...]
    travelled: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # Travelled of protos/types.proto

    @property
    def state(self) -> MoveState:
        return self.migration.state

    @property
    def error(self) -> ErrorRecord | None:
        return self.migration.error


@dataclass(frozen=True, kw_only=True)
class Done:
    """The last event: nothing more will happen by itself."""

    record: MigrationRecord


Event = Progress | StepEvent | Done


class Feed:
    """Of one move under way: one writer, any number of watchers. Thread-safe; no call of the writer's ever blocks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watchers: set[Watcher] = set()
        self._ended = False

    def report(self, progress: Progress) -> None:
        with self._changed:
            for watcher in self._watchers:
                watcher.pending.append(progress)
                watcher.fresh = True
            self._changed.notify_all()

    def wake(self) -> None:
        """The journal has grown."""
        with self._changed:
            for watcher in self._watchers:
                watcher.fresh = True
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more comes, from this process at least."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def watch(self) -> Watcher:
        watcher = Watcher(self)
        with self._changed:
            self._watchers.add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        with self._changed:
            self._watchers.discard(watcher)

    def take(self, watcher: Watcher) -> tuple[list[Progress], bool]:
        """Wait for news; returns the progress since the last time and whether the feed has ended."""
        with self._changed:
            self._changed.wait_for(lambda: watcher.fresh or self._ended)
            watcher.fresh = False
            pending = list(watcher.pending)
            watcher.pending.clear()
            return pending, self._ended


class Watcher:
    """One reader's place in a feed; the first `take` returns at once."""

    def __init__(self, feed: Feed) -> None:
        self.pending: deque[Progress] = deque(maxlen=MOST_PROGRESS)  # the oldest lines go first
        self.fresh = True
        self._feed = feed

    def take(self) -> tuple[list[Progress], bool]:
        return self._feed.take(self)

    def close(self) -> None:
        self._feed.forget(self)


def step_event(entry: Entry) -> StepEvent:
    facts = {name: value for name, value in entry.data.items() if name != "error"}
    error = entry.data.get("error")
    return StepEvent(
        seq=entry.seq,
        step=entry.step,
        event=entry.event,
        unix_ns=entry.unix_ns,
        facts=facts,
        error=error["message"] if error else "",
    )


def record(migration: Migration, entries: Sequence[Entry], *, with_journal: bool = True) -> MigrationRecord:
    """Everything that the journal says about one move."""
    done = {entry.step: entry for entry in entries if entry.event is JournalEvent.DONE}
    marks = _marks(migration, done)
    return MigrationRecord(
        migration=migration,
        step=next((e.step for e in reversed(entries) if e.event is JournalEvent.STARTED), SAGA),
        journal=tuple(step_event(entry) for entry in entries) if with_journal else (),
        facts=_seconds(migration, entries, done, marks),
        sent_bytes=dict(done["freeze"].data["sent_bytes"]) if "freeze" in done else {},
        marks=marks,
        travelled=done["freeze"].data.get("travelled", {}) if "freeze" in done else {},
    )


def _marks(migration: Migration, done: Mapping[str, Entry]) -> tuple[Mark, ...]:
    where = {
        "freeze": migration.source,
        "restore": migration.target,
        "resume": migration.target,
        "try": migration.target,
    }
    marks = {  # a set: the target's monitor says all of its marks each time
        Mark(name=mark["name"], unix_ns=mark["unix_ns"], host=host)
        for step, host in where.items()
        if step in done
        for mark in done[step].data["marks"]
    }
    return tuple(sorted(marks, key=lambda mark: mark.unix_ns))


def _seconds(
    migration: Migration, entries: Sequence[Entry], done: Mapping[str, Entry], marks: Sequence[Mark]
) -> dict[str, float]:
    facts: dict[str, float] = {}
    if migration.finished_unix_ns:
        facts["total_s"] = (migration.finished_unix_ns - migration.started_unix_ns) / 1e9
    if migration.rehearsal:
        return facts | _rehearsed(migration, entries, done, marks)
    freezing = [e for e in entries if (e.step, e.event) == ("freeze", JournalEvent.STARTED)]
    if not freezing or "resume" not in done:
        return facts
    # By the coordinator's one clock: it stood still for no longer than this.
    limit_s = (done["resume"].unix_ns - freezing[0].unix_ns) / 1e9
    facts["frozen_at_most_s"] = limit_s
    began = _instant(marks, migration.source, FROZEN)
    for name, end in (
        ("frozen_s", _instant(marks, migration.target, RUNNING)),
        ("downtime_s", _instant(marks, migration.target, ANNOUNCED) or _instant(marks, migration.target, RUNNING)),
    ):
        # Outside of these bounds the hosts' clocks disagree, and their difference says nothing.
        if began and end and 0 <= end - began <= limit_s * 1e9:
            facts[name] = (end - began) / 1e9
    return facts


def _rehearsed(
    migration: Migration, entries: Sequence[Entry], done: Mapping[str, Entry], marks: Sequence[Mark]
) -> dict[str, float]:
    """What a rehearsal has measured, as far as it came. `rehearsed_downtime_s`: how long a move would have stood still, without its pivot
    and the announcement; of it the time is left out that the source took to let its tasks go.
    """
    found: dict[str, float] = {}
    if "precheck" in done:
        found["predicted_downtime_s"] = done["precheck"].data["predicted_downtime_s"]

    def span(name: str, begin: int, end: int) -> None:
        if begin and end >= begin:
            found[name] = (end - begin) / 1e9

    source, target = migration.source, migration.target
    began, held, thawed = (_instant(marks, source, name) for name in (FROZEN, "held", THAWED))
    sent = max((mark.unix_ns for mark in marks if mark.host == source and mark.name != THAWED), default=0)
    span("dump_s", began, held)
    span("transfer_s", held, sent)
    span("source_frozen_s", began, thawed)
    span("restore_s", _instant(marks, target, "restore"), _instant(marks, target, "restored"))
    running = _instant(marks, target, RUNNING)
    freezing = next((e.unix_ns for e in entries if (e.step, e.event) == ("freeze", JournalEvent.STARTED)), 0)
    if (
        running and thawed and "try" in done and running - began <= done["try"].unix_ns - freezing
    ):  # else the clocks disagree
        span("rehearsed_downtime_s", began, running - (thawed - sent))
    return found


def _instant(marks: Sequence[Mark], host: str, name: str) -> int:
    """0 = there is no such mark."""
    return next((mark.unix_ns for mark in marks if (mark.host, mark.name) == (host, name)), 0)

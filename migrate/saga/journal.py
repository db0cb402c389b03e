"""The append-only history of a saga: what was intended, what was seen to be done, which way it was decided to go.

Every append is durable when it returns. Two kinds of rows: of a step (STARTED before its effect, DONE after it, ...)
and, under the step name "saga", of the whole (CANCEL_REQUESTED, COMMIT_REQUESTED, ABORTING, COMMITTED). The last ABORTING or COMMITTED
is the direction; only an operator's decision (`decide`) ever writes a second one.
"""

from __future__ import annotations

import enum
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from migrate.errors import Cancelled
from migrate.saga.database import Database

# What a step found out: JSON, kept with DONE, the input of later steps.
Facts = Mapping[str, Any]
Results = Mapping[str, Facts]
Change = Callable[[sqlite3.Connection], None]

SAGA = "saga"  # the step name of rows about the whole

SCHEMA = (
    """create table journal(
        seq integer primary key autoincrement,
        saga text not null,
        step text not null,
        event text not null,
        unix_ns integer not null,
        data text not null
    )""",
    "create index journal_saga on journal(saga, step, event)",
)


class Event(enum.StrEnum):
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    UNDO_FAILED = "undo_failed"
    CANCEL_REQUESTED = "cancel_requested"  # of the saga: do not pass the pivot
    COMMIT_REQUESTED = "commit_requested"  # of the saga: a step that waits for somebody's word has it
    ABORTING = "aborting"  # of the saga: no way forward
    COMMITTED = "committed"  # of the saga: no way back


class Direction(enum.StrEnum):
    FORWARD = "forward"  # neither decision has been made
    BACK = "back"  # ABORTING
    COMMITTED = "committed"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row. `seq` grows over all sagas of the file."""

    seq: int
    step: str
    event: Event
    unix_ns: int
    data: Facts


class Journal:
    """Of one saga. Thread-safe. `on_append` is called after each durable append, in the thread that appended."""

    def __init__(self, db: Database, saga_id: str, on_append: Callable[[], None] = lambda: None) -> None:
        self._db = db
        self._id = saga_id
        self._on_append = on_append

    def append(self, step: str, event: Event, data: Facts | None = None) -> None:
        with self._db.transaction() as db:
            self._insert(db, step, event, data)
        self._on_append()

    def write(self, db: sqlite3.Connection, step: str, event: Event, data: Facts | None = None) -> None:
        """As append, inside the transaction of somebody who has more to write."""
        self._insert(db, step, event, data)

    def commit(self, change: Change) -> None:
        """The pivot: `change` and COMMITTED in one transaction; there is no instant between the two.

        Raises Cancelled, and changes nothing, when somebody asked for a cancellation before.
        """
        with self._db.transaction() as db:
            if self._has(db, SAGA, Event.CANCEL_REQUESTED):
                raise Cancelled("cancelled just before the pivot")
            change(db)
            self._insert(db, SAGA, Event.COMMITTED, None)
        self._on_append()

    def abort(self, data: Facts) -> Direction:
        """Decide to go back, unless COMMITTED is there: returns what holds now."""
        with self._db.transaction() as db:
            direction = self._direction(db)
            if direction is Direction.FORWARD:
                self._insert(db, SAGA, Event.ABORTING, data)
                direction = Direction.BACK
        self._on_append()
        return direction

    def request_cancel(self, data: Facts | None = None) -> bool:
        """True: the saga will not pass its pivot. False: too late, or it goes back already."""
        with self._db.transaction() as db:
            if self._direction(db) is not Direction.FORWARD:
                return False
            if not self._has(db, SAGA, Event.CANCEL_REQUESTED):
                self._insert(db, SAGA, Event.CANCEL_REQUESTED, data)
        self._on_append()
        return True

    def request_commit(self) -> bool:
        """True: a step that waits for it may go on. False: the saga goes back, is past its pivot, or is to be cancelled."""
        with self._db.transaction() as db:
            if self._direction(db) is not Direction.FORWARD or self._has(db, SAGA, Event.CANCEL_REQUESTED):
                return False
            if not self._has(db, SAGA, Event.COMMIT_REQUESTED):
                self._insert(db, SAGA, Event.COMMIT_REQUESTED, None)
        self._on_append()
        return True

    def decide(self, event: Event, change: Change, data: Facts) -> None:
        """An operator's own decision, ABORTING or COMMITTED, over whatever was decided before."""
        with self._db.transaction() as db:
            change(db)
            self._insert(db, SAGA, event, data)
        self._on_append()

    def direction(self) -> Direction:
        return self._direction(self._db.connection)

    def has(self, step: str, event: Event) -> bool:
        return self._has(self._db.connection, step, event)

    def results(self) -> dict[str, Facts]:
        """By step, what DONE says."""
        return {entry.step: entry.data for entry in self.entries() if entry.event is Event.DONE}

    def last(self, step: str, event: Event) -> Entry | None:
        rows = [entry for entry in self.entries() if (entry.step, entry.event) == (step, event)]
        return rows[-1] if rows else None

    def entries(self, after_seq: int = 0) -> list[Entry]:
        """In order, those with a greater `seq`."""
        query = "select seq, step, event, unix_ns, data from journal where saga=? and seq>? order by seq"
        return [
            Entry(seq=seq, step=step, event=Event(event), unix_ns=unix_ns, data=json.loads(data))
            for seq, step, event, unix_ns, data in self._db.connection.execute(query, (self._id, after_seq))
        ]

    def _has(self, db: sqlite3.Connection, step: str, event: Event) -> bool:
        query = "select 1 from journal where saga=? and step=? and event=?"
        return db.execute(query, (self._id, step, event)).fetchone() is not None

    def _direction(self, db: sqlite3.Connection) -> Direction:
        query = "select event from journal where saga=? and step=? and event in (?,?) order by seq desc limit 1"
        row = db.execute(query, (self._id, SAGA, Event.ABORTING, Event.COMMITTED)).fetchone()
        if row is None:
            return Direction.FORWARD
        return Direction.COMMITTED if row[0] == Event.COMMITTED else Direction.BACK

    def _insert(self, db: sqlite3.Connection, step: str, event: Event, data: Facts | None) -> None:
        row = (self._id, step, event, time.time_ns(), json.dumps(data or {}))
        db.execute("insert into journal(saga, step, event, unix_ns, data) values(?,?,?,?,?)", row)

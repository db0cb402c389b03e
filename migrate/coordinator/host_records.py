"""What the store knows of hosts besides where they are: what their heartbeats told, and the events of their lives."""

from __future__ import annotations

import dataclasses
import enum
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from migrate.saga.database import Database

MOST_EVENTS = 2000  # of all hosts together; the oldest go


class Health(enum.StrEnum):
    """Of a host, as its heartbeats tell."""

    UNKNOWN = "unknown"  # it has never answered
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"  # silent for long; it may run all the same, and its containers with it


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """`since_unix_ns`: when `health` began. `seen_unix_ns`: of a host that is silent, its last answer, 0 = none.
    `error`: of its last beat. `boot_id`: of its last answer.
    """

    health: Health = Health.UNKNOWN
    since_unix_ns: int = 0
    seen_unix_ns: int = 0
    error: str = ""
    boot_id: str = ""


@dataclass(frozen=True, kw_only=True)
class HostEvent:
    """`action`: a Health, or "joined", "left", "rebooted"."""

    sequence: int
    host: str
    action: str
    unix_ns: int
    attributes: Mapping[str, str]


def pulse(text: str | None) -> Pulse:
    """Of the column; null is a host that has never been watched."""
    if text is None:
        return Pulse()
    raw = json.loads(text)
    return Pulse(**{**raw, "health": Health(raw["health"])})


def set_pulse(database: Database, host: str, pulse: Pulse, action: str = "") -> None:
    """With `action`, it is an event too. A host that has gone meanwhile has neither."""
    with database.transaction() as db:
        row = (json.dumps(dataclasses.asdict(pulse)), host)
        if db.execute("update hosts set pulse=? where name=?", row).rowcount and action:
            add_event(db, host, action, pulse.since_unix_ns, {"error": pulse.error} if pulse.error else {})


def events(database: Database, after: int = 0) -> list[HostEvent]:
    """Oldest first; `after`: only those with a higher sequence."""
    rows = database.connection.execute("select * from host_events where sequence>? order by sequence", (after,))
    return [HostEvent(**{**dict(row), "attributes": json.loads(row["attributes"])}) for row in rows]


def add_event(db: sqlite3.Connection, host: str, action: str, unix_ns: int, attributes: Mapping[str, str]) -> None:
    """In the transaction that makes it true."""
    row = (host, action, unix_ns, json.dumps(dict(attributes)))
    added = db.execute("insert into host_events(host, action, unix_ns, attributes) values(?,?,?,?)", row).lastrowid
    db.execute("delete from host_events where sequence<=?", ((added or 0) - MOST_EVENTS,))

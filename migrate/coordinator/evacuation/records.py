"""Evacuations and restores in the coordinator's store. What is written here before an effect is what a restart goes on from.

An item's try is written (target, number of the try) before its move begins, and names that move's request: so whoever starts it again
after a crash gets the same move.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrate.coordinator.store import Cordon, Store
from migrate.errors import ErrorRecord, InvalidArgument, NotFound, WrongState

EVACUATE, RESTORE = "evacuate", "restore"
ACTIONS = ("live", "stop-and-copy", "stop", "skip")


class State(enum.StrEnum):
    """Of an evacuation."""

    PLANNED = "planned"  # of a dry run; kept nowhere
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    INCOMPLETE = "incomplete"  # it has ended, and some containers are where they should not be
    CANCELLED = "cancelled"


class ItemState(enum.StrEnum):
    """Of one container in it."""

    PLANNED = "planned"
    MOVING = "moving"
    STOPPING = "stopping"
    STARTING = "starting"
    MOVED = "moved"
    STOPPED = "stopped"
    STARTED = "started"
    SKIPPED = "skipped"  # on purpose, or because there was nothing to do
    WAITING = "waiting"  # past its move's pivot, and the hosts do not answer: it goes on by itself
    FAILED = "failed"
    REFUSED = "refused"  # by the plan
    LATE = "late"  # not begun before the deadline
    CANCELLED = "cancelled"


OPEN = (ItemState.PLANNED, ItemState.MOVING, ItemState.STOPPING, ItemState.STARTING)
GOOD = (ItemState.MOVED, ItemState.STOPPED, ItemState.STARTED, ItemState.SKIPPED)


@dataclass(frozen=True, kw_only=True)
class Options:
    """As EvacuateRequest in protos/fleet.proto. `action` "": by policy, else live. `deadline_unix_ns`: an instant, which a restart does not
    put off; 0 = none.
    """

    to: tuple[str, ...] = ()
    action: str = ""
    max_parallel: int = 2
    bandwidth: int = 0
    deadline_unix_ns: int = 0
    selector: Mapping[str, str] = field(default_factory=dict)
    skip: bool = False
    end_exec: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One container. `action`: "live", "stop-and-copy", "stop", "start", "skip". `migration_id`: the last try's. `tried`: targets of moves
    that failed. `settled`: it has been brought home since. Seconds and bytes; a prediction of 0 is none.
    """

    container_id: str
    container: str
    action: str
    state: ItemState
    source: str
    target: str = ""
    migration_id: str = ""
    tries: int = 0
    tried: tuple[str, ...] = ()
    why: str = ""
    error: ErrorRecord | None = None
    predicted_s: float = 0.0
    predicted_downtime_s: float = 0.0
    took_s: float = 0.0
    downtime_s: float = 0.0
    memory_bytes: int = 0
    settled: bool = False

    def to_json(self) -> str:
        raw = dataclasses.asdict(self)
        raw["error"] = None if self.error is None else self.error.to_json()
        return json.dumps(raw)

    @staticmethod
    def from_json(text: str) -> Item:
        raw: dict[str, Any] = json.loads(text)
        raw["state"], raw["tried"] = ItemState(raw["state"]), tuple(raw["tried"])
        raw["error"] = None if raw["error"] is None else ErrorRecord.from_json(raw["error"])
        return Item(**raw)


@dataclass(frozen=True, kw_only=True)
class Evacuation:
    """`kind`: EVACUATE or RESTORE, of `host`. `planned`: its items are written. `items` in the order of the plan."""

    id: str
    kind: str
    host: str
    state: State
    reason: str
    options: Options
    request_id: str = ""
    planned: bool = False
    cancelled: bool = False
    predicted_s: float = 0.0
    started_unix_ns: int = 0
    finished_unix_ns: int = 0
    items: tuple[Item, ...] = ()

    def move_request(self, item: Item) -> str:
        """The request id of the item's present try."""
        return f"{self.id}.{item.container_id}.{item.tries}"


class Evacuations:
    """Thread-safe. Everything written is durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def begin(self, wanted: Evacuation) -> Evacuation:
        """Write it, and cordon (evacuate) or uncordon (restore) the host in the same transaction.

        The same request_id again returns what it began before. WrongState while another one of this host goes on.
        """
        with self._database.transaction() as db:
            if wanted.request_id:
                query = "select * from evacuations where request_id=?"
                if row := db.execute(query, (wanted.request_id,)).fetchone():
                    return _evacuation(row)
            query = "select id, kind from evacuations where host=? and state=?"
            if row := db.execute(query, (wanted.host, State.RUNNING)).fetchone():
                raise WrongState(
                    f"{row['kind']} of {wanted.host} goes on: {row['id']}",
                    hint=f"migrate evacuations watch {row['id']}, or: migrate evacuations cancel {row['id']}",
                )
            db.execute(
                "insert into evacuations(id, kind, host, state, reason, options, request_id, started_unix_ns)"
                " values(?,?,?,?,?,?,?,?)",
                (
                    wanted.id,
                    wanted.kind,
                    wanted.host,
                    wanted.state,
                    wanted.reason,
                    json.dumps(dataclasses.asdict(wanted.options)),
                    wanted.request_id or None,
                    wanted.started_unix_ns,
                ),
            )
            if wanted.kind == EVACUATE:
                reason = wanted.reason or f"evacuation {wanted.id}"
                cordon = json.dumps(dataclasses.asdict(Cordon(reason=reason, unix_ns=wanted.started_unix_ns)))
                db.execute("update hosts set cordon=? where name=? and cordon is null", (cordon, wanted.host))
            else:
                db.execute("update hosts set cordon=null where name=?", (wanted.host,))
        return wanted

    def write_plan(self, evacuation_id: str, items: Iterable[Item], predicted_s: float) -> None:
        """All of it at once: a plan is there or it is not."""
        with self._database.transaction() as db:
            for position, item in enumerate(items):
                row = (evacuation_id, item.container_id, position, item.to_json())
                db.execute("insert into evacuation_items values(?,?,?,?)", row)
            db.execute("update evacuations set planned=1, predicted_s=? where id=?", (predicted_s, evacuation_id))

    def write_item(self, evacuation_id: str, item: Item) -> None:
        with self._database.transaction() as db:
            self._put(db, evacuation_id, item)

    def bring_home(self, restore: Evacuation, item: Item) -> None:
        """Write the restore's item, and that all that took this container away since it was at home is settled."""
        with self._database.transaction() as db:
            self._put(db, restore.id, item)
            rows = db.execute(
                "select e.id, e.host, i.item from evacuations e join evacuation_items i on i.evacuation_id=e.id"
                " where e.kind=? and i.container_id=? order by e.started_unix_ns, e.id",
                (EVACUATE, item.container_id),
            ).fetchall()
            away = [(row["id"], row["host"], Item.from_json(row["item"])) for row in rows]
            away = [one for one in away if not one[2].settled]
            first = next((n for n, one in enumerate(away) if one[1] == restore.host), len(away))
            for evacuation_id, _, old in away[first:]:
                self._put(db, evacuation_id, dataclasses.replace(old, settled=True))

    @staticmethod
    def _put(db: sqlite3.Connection, evacuation_id: str, item: Item) -> None:
        query = "update evacuation_items set item=? where evacuation_id=? and container_id=?"
        db.execute(query, (item.to_json(), evacuation_id, item.container_id))

    def finish(self, evacuation_id: str, state: State) -> None:
        with self._database.transaction() as db:
            query = "update evacuations set state=?, finished_unix_ns=? where id=? and state=?"
            db.execute(query, (state, time.time_ns(), evacuation_id, State.RUNNING))

    def cancel(self, evacuation_id: str) -> None:
        """Idempotent. Begins no more moves from now on."""
        with self._database.transaction() as db:
            db.execute("update evacuations set cancelled=1 where id=?", (evacuation_id,))

    def get(self, evacuation_id: str) -> Evacuation:
        """With its items; by id or an unambiguous prefix."""
        query = "select * from evacuations where substr(id,1,?)=?"
        rows = self._all(query, len(evacuation_id), evacuation_id) if evacuation_id else []
        if len(rows) > 1:
            raise InvalidArgument(f"{evacuation_id!r} is the beginning of {len(rows)} ids", hint="give more digits")
        if not rows:
            raise NotFound(f"no evacuation {evacuation_id!r}", hint="migrate evacuations", code="evacuation.not_found")
        return dataclasses.replace(_evacuation(rows[0]), items=self.items(rows[0]["id"]))

    def items(self, evacuation_id: str) -> tuple[Item, ...]:
        query = "select item from evacuation_items where evacuation_id=? order by position"
        return tuple(Item.from_json(row["item"]) for row in self._all(query, evacuation_id))

    def of_request(self, request_id: str) -> Evacuation | None:
        rows = self._all("select * from evacuations where request_id=?", request_id) if request_id else []
        return _evacuation(rows[0]) if rows else None

    def newest(self, *, host: str = "", active: bool = False, limit: int = 0) -> list[Evacuation]:
        """Newest first, without items; limit 0 = all."""
        query = (
            "select * from evacuations where (?='' or host=?) and (not ? or state='running')"
            " order by started_unix_ns desc, id limit ?"
        )
        return [_evacuation(row) for row in self._all(query, host, host, active, limit or -1)]

    def away(self, host: str) -> list[Item]:
        """What evacuations of `host` did and nobody has settled: one item a container, the newest; by name."""
        found: dict[str, Item] = {}
        for evacuation in reversed(self.newest(host=host)):
            if evacuation.kind == EVACUATE:
                found.update({one.container_id: one for one in self.items(evacuation.id) if not one.settled})
        return sorted(found.values(), key=lambda one: one.container)

    def promised(self) -> dict[str, int]:
        """By host: bytes of memory of containers that running evacuations will still bring there."""
        found: dict[str, int] = {}
        for evacuation in self.newest(active=True):
            for item in self.items(evacuation.id):
                if item.target and item.state in (ItemState.PLANNED, ItemState.MOVING):
                    found[item.target] = found.get(item.target, 0) + item.memory_bytes
        return found

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self._database.connection.execute(query, values).fetchall()


def _evacuation(row: sqlite3.Row) -> Evacuation:
    raw = json.loads(row["options"])
    raw["to"] = tuple(raw["to"])
    return Evacuation(
        id=row["id"],
        kind=row["kind"],
        host=row["host"],
        state=State(row["state"]),
        reason=row["reason"],
        options=Options(**raw),
        request_id=row["request_id"] or "",
        planned=bool(row["planned"]),
        cancelled=bool(row["cancelled"]),
        predicted_s=row["predicted_s"],
        started_unix_ns=row["started_unix_ns"],
        finished_unix_ns=row["finished_unix_ns"],
    )

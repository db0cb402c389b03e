"""What the coordinator knows, in one SQLite file: the fleet, its hosts, who owns which container, every move.

The owner and the epoch of a container are written in exactly two places: `allocate.create()` and `change_owner()`, and
the latter only inside a transaction of the journal that records the decision. Specs are kept as the text that the
caller gave (JSON of ContainerSpec); nothing here looks into them.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NewType

from migrate.coordinator import host_records
from migrate.coordinator.host_records import Pulse
from migrate.coordinator.schema import SCHEMA
from migrate.errors import AlreadyExists, ErrorRecord, InvalidArgument, NotFound, WrongState
from migrate.saga.database import Database

ContainerId = NewType("ContainerId", str)
MigrationId = NewType("MigrationId", str)


class MoveState(enum.StrEnum):
    RUNNING = "running"
    WAITING = "waiting"  # past the pivot, retrying
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REHEARSED = "rehearsed"  # and its copy was thrown away
    NEEDS_ATTENTION = "needs-attention"


ACTIVE = (MoveState.RUNNING, MoveState.WAITING, MoveState.NEEDS_ATTENTION)


class Desired(enum.StrEnum):
    """What the user wants a container to be."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Addresses: `subnet` "10.88.0.0/16"; containers get those from `first` to `last`, but none of `reserved`."""

    name: str = "fleet"
    subnet: str = "10.88.0.0/16"
    first: str = "10.88.1.1"
    last: str = "10.88.255.254"
    gateway: str = ""  # "" = containers get no default route
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cordon:
    """A host that takes no new containers and no moves; what runs on it goes on. `reason` as the operator gave it."""

    reason: str
    unix_ns: int


@dataclass(frozen=True, kw_only=True)
class Host:
    """`host_keys`: the pinned public keys of its sshd, "ssh-ed25519 AAAA...". `put_host` leaves labels, cordon and pulse alone.
    `joined`: by `host add`, and not by the configuration. `login`: how that came to it, "root@10.0.0.2".
    """

    name: str
    address: str
    port: int = 22
    user: str = "migrate"
    host_keys: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    cordon: Cordon | None = None
    pulse: Pulse = field(default_factory=Pulse)
    joined: bool = False
    login: str = ""


@dataclass(frozen=True, kw_only=True)
class Container:
    """`spec`: JSON text. `address` without a prefix length. `epoch` grows by one with each change of owner."""

    id: ContainerId
    name: str
    spec: str
    owner: str
    epoch: int
    desired: Desired
    address: str
    mac: str
    ids_base: int
    created_unix_ns: int


ON_TIMEOUT = ("abort", "pause", "post-copy")


@dataclass(frozen=True, kw_only=True)
class PrecopyOptions:
    """As in protos/types.proto. `max_rounds` 0: the agent's default; `timeout_s` 0: none; `on_timeout`: one of ON_TIMEOUT."""

    max_rounds: int = 0
    timeout_s: float = 0.0
    on_timeout: str = "abort"
    throttle: bool = False
    hold: bool = False
    end_exec: bool = False
    binding: bool = False
    fixed_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """How the bulk bytes go. `compress`: one of COMPRESS; `bandwidth`: bytes per second, 0 = no limit; `connections`: of
    ssh, beside each other, at most MOST_CONNECTIONS.
    """

    compress: str = "auto"
    bandwidth: int = 0
    connections: int = 1


COMPRESS = ("auto", "none", "lz4", "zstd")
MOST_CONNECTIONS = 8  # sshd lets ten at once log in (MaxStartups)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A move. `epoch`: the container's before the pivot, which every call to an agent carries."""

    id: MigrationId
    container_id: ContainerId
    container: str
    source: str
    target: str
    epoch: int
    state: MoveState
    reason: str
    mode: str
    max_downtime_s: float
    request_id: str
    started_unix_ns: int
    finished_unix_ns: int
    error: ErrorRecord | None
    transfer: TransferOptions = field(default_factory=TransferOptions)
    precopy: PrecopyOptions = field(default_factory=PrecopyOptions)
    skip: tuple[str, ...] = ()  # names of checks whose findings do not stop it
    rehearsal: bool = False  # it has no pivot: the container stays, and what is on the target is thrown away
    policies: Mapping[str, str] = field(default_factory=dict)  # setting -> the policy that it came from
    priority: str = "normal"


class Store:
    """Thread-safe. Everything returned is a copy; everything written is durable."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, SCHEMA)
        self.reserved: set[str] = set()  # addresses and first ids that builds have; read and changed in transactions

    # ------------------------------------------------------------ fleet

    def fleet(self) -> Fleet:
        rows = self._all("select name, value from settings")
        raw = {row["name"]: json.loads(row["value"]) for row in rows}
        if "reserved" in raw:
            raw["reserved"] = tuple(raw["reserved"])
        return Fleet(**raw)

    def set_fleet(self, fleet: Fleet) -> None:
        """Containers that exist keep their addresses."""
        with self.database.transaction() as db:
            for name in Fleet.__dataclass_fields__:
                value = json.dumps(getattr(fleet, name))
                db.execute("insert or replace into settings values(?,?)", (name, value))

    # ------------------------------------------------------------ hosts

    def put_host(self, host: Host) -> None:
        """Add, or change what is known of it."""
        if not host.name or not host.address:
            raise InvalidArgument(f"a host needs a name and an address, not {host.name!r} and {host.address!r}")
        row = (
            host.name, host.address, host.port, host.user, json.dumps(host.host_keys), time.time_ns(), host.joined, host.login
        )  # fmt: skip
        with self.database.transaction() as db:
            db.execute(
                "insert into hosts(name, address, port, user, host_keys, added_unix_ns, joined, login)"
                " values(?,?,?,?,?,?,?,?)"
                " on conflict(name) do update set address=excluded.address,"
                " port=excluded.port, user=excluded.user, host_keys=excluded.host_keys, joined=excluded.joined,"
                " login=excluded.login",
                row,
            )

    def remove_host(self, name: str, *, force: bool = False) -> list[str]:
        """Only one that has no move under way and owns nothing; with `force` its containers are forgotten too. Returns their names."""
        self.host(name)
        with self.database.transaction() as db:
            owned = [row["name"] for row in db.execute("select name from containers where owner=?", (name,)).fetchall()]
            if owned and not force:
                raise WrongState(f"{name} still has {', '.join(owned)}", hint="move or remove these first")
            query = "select id from active_migrations where source=? or target=?"
            if moving := db.execute(query, (name, name)).fetchone():
                raise WrongState(
                    f"{name} takes part in move {moving['id']}", hint=f"migrate migrations show {moving['id']}"
                )
            db.execute("delete from containers where owner=?", (name,))
            db.execute("delete from hosts where name=?", (name,))
            host_records.add_event(db, name, "left", time.time_ns(), {})
        return owned

    def host(self, name: str) -> Host:
        row = self._one("select * from hosts where name=?", name)
        if row is None:
            known = ", ".join(host.name for host in self.hosts()) or "none"
            raise NotFound(f"no host {name!r}", hint=f"hosts of this fleet: {known}", code="host.not_found")
        return _host(row)

    def hosts(self) -> list[Host]:
        return [_host(row) for row in self._all("select * from hosts order by name")]

    def set_cordon(self, name: str, cordon: Cordon | None) -> None:
        """None: it takes containers and moves again."""
        text = None if cordon is None else json.dumps(dataclasses.asdict(cordon))
        with self.database.transaction() as db:
            db.execute("update hosts set cordon=? where name=?", (text, name))

    def set_labels(self, name: str, labels: Mapping[str, str], remove: Iterable[str] = ()) -> None:
        """Add or change `labels`, take `remove` away; others stay."""
        with self.database.transaction() as db:
            row = db.execute("select labels from hosts where name=?", (name,)).fetchone()
            kept = {key: value for key, value in json.loads(row["labels"]).items() if key not in set(remove)}
            db.execute("update hosts set labels=? where name=?", (json.dumps({**kept, **labels}), name))

    # ------------------------------------------------------------ containers

    def container(self, name: str) -> Container:
        """By name, id, or an unambiguous prefix of an id."""
        row = self._one("select * from containers where name=? or id=? order by name=? desc", name, name, name)
        if row is not None:
            return _container(row)
        rows = self._all("select * from containers where substr(id,1,?)=?", len(name), name) if name else []
        if len(rows) > 1:
            names = ", ".join(row["name"] for row in rows)
            raise InvalidArgument(f"{name!r} is the beginning of {len(rows)} ids: {names}", hint="give more digits")
        if not rows:
            raise NotFound(f"no container {name!r}", hint="migrate ps --all", code="container.not_found")
        return _container(rows[0])

    def containers(self, owner: str = "") -> list[Container]:
        """By name; `owner` "" = of every host."""
        rows = self._all("select * from containers where ?='' or owner=? order by name", owner, owner)
        return [_container(row) for row in rows]

    def set_desired(self, container_id: ContainerId, desired: Desired) -> None:
        with self.database.transaction() as db:
            db.execute("update containers set desired=? where id=?", (desired, container_id))

    def rename(self, container_id: ContainerId, name: str, spec: str) -> None:
        """Another name, with the spec that has it. AlreadyExists when it is taken; WrongState while a move is under way."""
        with self.database.transaction() as db:
            query = "select id, state from active_migrations where container_id=?"
            if row := db.execute(query, (container_id,)).fetchone():
                raise WrongState(f"move {row['id']} is {row['state']}", hint=f"migrate migrations show {row['id']}")
            if row := db.execute("select id from containers where name=? and id!=?", (name, container_id)).fetchone():
                raise AlreadyExists(
                    f"the name {name} is taken by container {row['id'][:12]}", hint="choose another, or rename that one"
                )
            db.execute("update containers set name=?, spec=? where id=?", (name, spec, container_id))

    def set_spec(self, container_id: ContainerId, spec: str) -> None:
        """Replace the text; the allocated values in it are the caller's to keep."""
        with self.database.transaction() as db:
            db.execute("update containers set spec=? where id=?", (spec, container_id))

    def remove_container(self, container_id: ContainerId) -> None:
        """Forget it: its name, address and ids are free again. Refused while a move is under way. Idempotent."""
        with self.database.transaction() as db:
            query = "select id, state from active_migrations where container_id=?"
            if row := db.execute(query, (container_id,)).fetchone():
                raise WrongState(f"move {row['id']} is {row['state']}", hint=f"migrate migrations show {row['id']}")
            db.execute("delete from containers where id=?", (container_id,))

    # ------------------------------------------------------------ moves

    def create_migration(self, migration: Migration) -> Migration:
        """Claim the container for this move. The same request_id again returns the move that it made before.

        Raises WrongState when another move of the container is active, or its owner or epoch has changed meanwhile.
        """
        with self.database.transaction() as db:
            if migration.request_id:
                query = "select * from migrations where request_id=?"
                if row := db.execute(query, (migration.request_id,)).fetchone():
                    return _migration(row)
            query = "select id, state from active_migrations where container_id=?"
            if row := db.execute(query, (migration.container_id,)).fetchone():
                hint = "repair" if row["state"] == MoveState.NEEDS_ATTENTION else "migrations show"
                raise WrongState(
                    f"{migration.container} has a move already: {row['id']} is {row['state']}",
                    hint=f"migrate {hint} {row['id']}",
                )
            query = "select 1 from containers where id=? and owner=? and epoch=?"
            if not db.execute(query, (migration.container_id, migration.source, migration.epoch)).fetchone():
                raise WrongState(f"{migration.container} is no longer on {migration.source}", hint="try again")
            refuse_cordoned(db, migration.target)
            insert_migration(db, migration)
        return migration

    def migration(self, migration_id: str) -> Migration:
        """By id or an unambiguous prefix."""
        rows = self._all("select * from migrations where substr(id,1,?)=?", len(migration_id), migration_id)
        if len(rows) > 1 and migration_id:
            raise InvalidArgument(f"{migration_id!r} is the beginning of {len(rows)} ids", hint="give more digits")
        if not rows or not migration_id:
            raise NotFound(
                f"no move {migration_id!r}",
                hint=f"migrate migrations; if this database is an older copy and a host knows that move: migrate repair {migration_id}",
                code="migration.not_found",
            )
        return _migration(rows[0])

    def migration_of_request(self, request_id: str) -> Migration | None:
        row = self._one("select * from migrations where request_id=?", request_id)
        return None if row is None else _migration(row)

    def migrations(self, *, container_id: str = "", active: bool = False, limit: int = 0) -> list[Migration]:
        """Newest first; limit 0 = all."""
        query = (
            "select * from migrations where (?='' or container_id=?)"
            " and (not ? or id in (select id from active_migrations))"
            " order by started_unix_ns desc, id limit ?"
        )
        rows = self._all(query, container_id, container_id, active, limit or -1)
        return [_migration(row) for row in rows]

    def set_migration_state(self, migration_id: MigrationId, state: MoveState, error: ErrorRecord | None) -> None:
        """`finished` is set by the first state that is not active."""
        finished = 0 if state in ACTIVE else time.time_ns()
        text = None if error is None else json.dumps(error.to_json())
        with self.database.transaction() as db:
            query = "update migrations set state=?, error=?, finished_unix_ns=? where id=?"
            db.execute(query, (state, text, finished, migration_id))

    def set_migration_bandwidth(self, migration_id: MigrationId, bandwidth: int) -> None:
        """Of one whose stream may still have to be opened, too."""
        with self.database.transaction() as db:
            query = "update migrations set transfer=json_set(transfer, '$.bandwidth', ?) where id=?"
            db.execute(query, (bandwidth, migration_id))

    def _one(self, query: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.database.connection.execute(query, values).fetchone()
        return row

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self.database.connection.execute(query, values).fetchall()


def insert_migration(db: sqlite3.Connection, migration: Migration) -> None:
    """A row, inside the transaction of the caller."""
    db.execute(
        "insert into migrations(id, container_id, container, source, target, epoch, state, reason, mode,"
        " max_downtime_s, request_id, started_unix_ns, transfer, precopy, skip, rehearsal, policies,"
        " priority) values(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            migration.id,
            migration.container_id,
            migration.container,
            migration.source,
            migration.target,
            migration.epoch,
            migration.state,
            migration.reason,
            migration.mode,
            migration.max_downtime_s,
            migration.request_id or None,
            migration.started_unix_ns,
            json.dumps(dataclasses.asdict(migration.transfer)),
            json.dumps(dataclasses.asdict(migration.precopy)),
            json.dumps(migration.skip),
            migration.rehearsal,
            json.dumps(dict(migration.policies)),
            migration.priority,
        ),
    )


def set_owner(db: sqlite3.Connection, container_id: ContainerId, *, owner: str, epoch: int) -> None:
    """What the hosts say, where the database is an older one (unknown.py); else ownership passes by change_owner() alone."""
    db.execute("update containers set owner=?, epoch=? where id=?", (owner, epoch, container_id))


def change_owner(db: sqlite3.Connection, container_id: ContainerId, *, source: str, target: str, epoch: int) -> None:
    """Ownership passes from `source`, at `epoch`, to `target`; raises WrongState, changing nothing, if it is not so.

    To be called inside the transaction that journals the decision, and nowhere else.
    """
    query = "update containers set owner=?, epoch=epoch+1 where id=? and owner=? and epoch=?"
    if db.execute(query, (target, container_id, source, epoch)).rowcount != 1:
        raise WrongState(f"container {container_id} is not owned by {source} at epoch {epoch}")


def refuse_cordoned(db: sqlite3.Connection, host: str) -> None:
    """Raises WrongState where `host` takes nothing new. In the transaction that would give it something."""
    row = db.execute("select cordon from hosts where name=?", (host,)).fetchone()
    if row is not None and row["cordon"] is not None:
        reason = Cordon(**json.loads(row["cordon"])).reason
        raise WrongState(
            f"{host} is cordoned{f' ({reason})' if reason else ''}: it takes no new containers and no moves",
            hint=f"choose another host, or: migrate host uncordon {host}",
            code="cordoned.wrong_state",
        )


def check_free(db: sqlite3.Connection, column: str, value: str) -> None:
    """Raises AlreadyExists when some container has `value` in `column`."""
    for row in db.execute("select * from containers"):
        if row[column] == value:
            raise AlreadyExists(
                f"{column} {value} is taken by container {row['name']}", hint=f"choose another {column}"
            )


def _host(row: sqlite3.Row) -> Host:
    return Host(
        name=row["name"],
        address=row["address"],
        port=row["port"],
        user=row["user"],
        host_keys=tuple(json.loads(row["host_keys"])),
        labels=json.loads(row["labels"]),
        cordon=None if row["cordon"] is None else Cordon(**json.loads(row["cordon"])),
        pulse=host_records.pulse(row["pulse"]),
        joined=bool(row["joined"]),
        login=row["login"],
    )


def _container(row: sqlite3.Row) -> Container:
    return Container(
        id=ContainerId(row["id"]),
        name=row["name"],
        spec=row["spec"],
        owner=row["owner"],
        epoch=row["epoch"],
        desired=Desired(row["desired"]),
        address=row["address"],
        mac=row["mac"],
        ids_base=row["ids_base"],
        created_unix_ns=row["created_unix_ns"],
    )


def _migration(row: sqlite3.Row) -> Migration:
    return Migration(
        id=MigrationId(row["id"]),
        container_id=ContainerId(row["container_id"]),
        container=row["container"],
        source=row["source"],
        target=row["target"],
        epoch=row["epoch"],
        state=MoveState(row["state"]),
        reason=row["reason"],
        mode=row["mode"],
        max_downtime_s=row["max_downtime_s"],
        request_id=row["request_id"] or "",
        started_unix_ns=row["started_unix_ns"],
        finished_unix_ns=row["finished_unix_ns"],
        error=None if row["error"] is None else ErrorRecord.from_json(json.loads(row["error"])),
        transfer=TransferOptions(**json.loads(row["transfer"])),
        precopy=PrecopyOptions(**json.loads(row["precopy"])),
        skip=tuple(json.loads(row["skip"])),
        rehearsal=bool(row["rehearsal"]),
        policies=json.loads(row["policies"]),
        priority=row["priority"],
    )
